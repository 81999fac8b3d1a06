"""What JUMP-CP publishes about its plates: wells, controls, microscopes, plate maps."""
