"""Everything on one machine: embedded services on loopback and the demo that runs the whole loop on them."""
