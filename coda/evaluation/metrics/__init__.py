"""One metric a file: arrays in, a number out. Nothing here needs a network, a label or a policy."""
