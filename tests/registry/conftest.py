from conftest_cli import run
from conftest_registry import (
    adapted,
    empty_database,
    moto_server,
    other_line,
    release_of,
    services,
    tiny_params,
    trained,
)

__all__ = [
    "adapted",
    "empty_database",
    "moto_server",
    "other_line",
    "release_of",
    "run",
    "services",
    "tiny_params",
    "trained",
]
