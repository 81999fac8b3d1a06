"""The documentation names everything there is, with the values there are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coda.simulation import KINDS, LABORATORIES, MECHANISMS, TRAITS


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "simulation.md").read_text(encoding="utf-8")


def test_the_page_prints_every_trait(page):
    (program,) = re.findall(r"```python\n(from coda.simulation import TRAITS\n.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True)
    lines = [f"{item.name}; {item.typical}; {item.unit}; {item.scale}; {item.meaning}" for item in TRAITS]
    assert done.stdout.splitlines() == lines


def test_every_kind_laboratory_and_mechanism_is_named(page):
    missing = [name for name in (*KINDS, *LABORATORIES) if f"`{name}`" not in page]
    flowing = " ".join(page.split())
    assert missing + [name for name in MECHANISMS if name not in flowing] == []


def test_laboratory_numbers_are_those_of_the_code(page):
    laboratories = LABORATORIES.values()
    recipes = " | ".join(", ".join(f"{x:g}" for x in laboratory.stain_recipe) for laboratory in laboratories)
    pixels = " | ".join(f"{laboratory.optics.pixel_size_um:.2f}" for laboratory in laboratories)
    stocks = [f"{name} {value:+g}" for laboratory in laboratories for name, value in laboratory.biology.items()]
    assert f"| {recipes} |" in page
    assert f"| {pixels} |" in page
    assert [stock for stock in stocks if stock not in page] == []
