"""CODA: label-free repair of microscopy classifiers when images come from another laboratory, microscope or week.

Importing this package touches no network, disk, environment variable or logger; every sub-package says in its own
docstring what it is for. `docs/architecture.md` is the map.
"""

__version__ = "0.1.0"
