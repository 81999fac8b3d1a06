"""Manifests of plates that lie somewhere already: built from what is found, and checked against what is there."""
