"""Studies that can be made again: the paper's figures, options, calibration. Of a checkout, not of the wheel."""
