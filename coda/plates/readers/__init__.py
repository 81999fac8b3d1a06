"""Plates of real instruments, made into a delivery: a folder with images, tables and, last of all, a manifest."""
