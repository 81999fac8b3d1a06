"""Fields and parameters of networks that train in milliseconds."""

from tests.training.conftest import fields, make_table, tiny

__all__ = ["fields", "make_table", "tiny"]
