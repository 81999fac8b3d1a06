"""The documentation names everything there is, with the values there are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coda.simulation import KINDS, LABORATORIES, MECHANISMS, TRAITS
from coda.simulation.laboratories import Laboratory


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "simulation.md").read_text(encoding="utf-8")


def test_the_page_prints_every_trait(page):
    (program,) = re.findall(r"```python\n(from coda.simulation import TRAITS\n.*?)```", page, re.DOTALL)
    lines = [f"{item.name}; {item.typical}; {item.unit}; {item.scale}; {item.meaning}" for item in TRAITS]
    assert printed(program).splitlines() == lines


def test_every_kind_laboratory_and_mechanism_is_named(page):
    missing = [name for name in (*KINDS, *LABORATORIES) if f"`{name}`" not in page]
    flowing = " ".join(page.split())
    assert missing + [name for name in MECHANISMS if name not in flowing] == []


def test_the_page_names_each_microscope_and_prints_a_laboratory(page):
    for name, laboratory in LABORATORIES.items():
        make, _, _ = laboratory.instrument.partition(" (")
        assert re.search(rf"^\| `{name}` \| {make}\b", page, re.MULTILINE)
    (program,) = re.findall(r"```python\n(from coda.simulation import LABORATORIES\n.*?)```", page, re.DOTALL)
    assert Laboratory.model_validate_json(printed(program)) == LABORATORIES["lab_b"]


def printed(program: str) -> str:
    return subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True).stdout
