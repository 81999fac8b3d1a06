"""What is pinned installs on every Python that the project says it runs on, not only on the one it was pinned with."""

import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

PATCH = ".2"
"""Oldest patch release that a system still ships (Debian 12)."""

ROOT = Path(__file__).resolve().parents[2]


def test_no_pin_asks_for_a_newer_python_than_the_project() -> None:
    """A pin that does not fit is no error for pip: it goes through all versions of everything, for hours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=") + PATCH
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.partition(" ")[0].split("==") for line in lines if "==" in line and not line.startswith("#"))
    asked = {}
    for name, version in pins.items():
        try:
            found = metadata(name)
        except PackageNotFoundError:
            continue  # of another platform, or of an extra that is not installed here
        if found["Version"].partition("+")[0] == version:
            asked[name] = found.get("Requires-Python") or ""
    assert len(asked) > 200
    assert not {name: text for name, text in asked.items() if not SpecifierSet(text).contains(oldest)}
