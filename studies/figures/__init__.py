"""The paper's figures 4, 5 and 6."""
