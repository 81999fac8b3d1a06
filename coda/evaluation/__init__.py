"""One metric a file, and the gate that reads only numbers. Nothing here needs a network or a label to run."""
