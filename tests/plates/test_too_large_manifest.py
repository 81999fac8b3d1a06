"""A manifest above the limit is told what helps against that."""

import pytest
from typer.testing import CliRunner

from coda.cli.manifest import app
from coda.contracts.manifest import MANIFEST_NAME, SMALLER
from coda.plates.tree import too_large


def test_check_of_a_manifest_above_the_limit_names_what_helps(tmp_path, monkeypatch):
    monkeypatch.setattr("coda.cli.manifest.MAX_MANIFEST_BYTES", 100)
    (tmp_path / MANIFEST_NAME).write_text("x" * 101)
    error = CliRunner().invoke(app, ["check", str(tmp_path / MANIFEST_NAME)]).exception
    (problem,) = error.problems
    assert (problem.found, problem.expected) == ("101 bytes", "at most 100 bytes")
    assert problem.remedy == SMALLER


@pytest.mark.parametrize("name", ["a/load.csv", "images.zip"])
def test_other_large_files_are_another_matter(name):
    (problem,) = too_large("s3://x/y", name, 101, 100).problems
    assert "what kind of file" in problem.remedy
