"""Parameters and fields of the training tests serve here too."""

from tests.training.conftest import fields, make_table, tiny

__all__ = ["fields", "make_table", "tiny"]
