"""The studies run on what the benchmarks' tests run on: two laboratories' plates of a few small fields."""

from tests.benchmark.conftest import plates, setting, short
from tests.training.conftest import fields, make_table, tiny

__all__ = ["fields", "make_table", "plates", "setting", "short", "tiny"]
