"""What is measured of the program itself: speed, ingest, growth, drift rules. Part of a checkout, not of the wheel."""
