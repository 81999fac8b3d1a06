"""The house: a module's name stands for one thing, and functions and files stay small (decision 0044)."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("coda", "benchmarks", "studies")
LONGEST_FILE = 500
NAMED_AFTER = ("coda/cli", "coda/contracts", "coda/steps", "coda/training/methods")
"""Folders whose files are named after a command, a contract, a step or a part that every method has, and so after what
it is about elsewhere."""

UNDER_WAY = {"head", "hooks", "mae"}
"""Names in `coda.networks`, `coda.training` and `coda.adaptation` that their own change takes apart."""

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "__" not in path.stem)


def test_a_module_name_stands_once():
    places = defaultdict(list)
    for path in MODULES:
        where = path.relative_to(ROOT).as_posix()
        if not where.startswith(NAMED_AFTER):
            places[path.stem].append(where)
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in UNDER_WAY} == {}


def test_files_stay_readable_at_one_sitting():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_stay_below_their_limit(package):
    long = {}
    for path in (path for path in MODULES if path.relative_to(ROOT).parts[0] == package):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.body[0].lineno + 1
                if length > 80:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = length
    assert long == {}
