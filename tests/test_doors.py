"""The extension points of docs/architecture.md: each example is named by the files of its row, and by no others."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = ("coda/*.py", "components/*.py", "pipelines/*.py", "params.yaml", "dvc.yaml")
BACKBONES = {"coda/networks/backbone.py"}
"""Files that name weights of the same name: backbones of DINOv2."""


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## Extension points\n")[2].partition("\n## ")[0].partition("\nOthers have tests")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def naming(pattern: str) -> set[str]:
    """Return the files of the program in which a pattern stands."""
    command = ["git", "grep", "-liE", pattern, "--", *PROGRAM]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_there_is_a_table_of_doors() -> None:
    assert len(rows()) >= 2


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_door_takes_the_files_of_its_row(row: list[str]) -> None:
    example = re.search(r"`(\w+)`", row[2])
    assert example, row
    places = [place for place in re.findall(r"`([\w/<>.]+)`", row[1]) if "/" in place or place.endswith(".yaml")]
    own = tuple(place.replace("<name>", example[1]) for place in places if "<name>" in place)
    others = {place for place in places if "<name>" not in place}
    # a file or folder of its own has the name in its path, and others name it as a word; else it stands in quotes
    found = naming(example[1]) - BACKBONES if own else naming(f'"{example[1]}"')
    assert {file for file in found if not (own and file.startswith(own))} == others
    assert len(others) <= 3
    assert all((ROOT / file).exists() for file in (*own, *others))
