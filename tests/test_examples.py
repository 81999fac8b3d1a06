"""Examples in docstrings and on docs/python.md: they run, and give what they say."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

from tests.pages import ROOT, Page

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules():
    files = [path for path in sorted((ROOT / "coda").rglob("*.py")) if ">>> " in path.read_text()]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_give_what_they_say(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert found.attempted
    assert not found.failed


def test_the_page_runs_from_top_to_bottom_and_names_what_has_examples(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = Page(ROOT / "docs/python.md")
    names: dict[str, object] = {}
    (code,) = [body for kind, body in page.fences if kind == "python"]
    exec(compile(code, "docs/python.md", "exec"), names)  # noqa: S102  the page's own code
    assert names["probabilities"].shape == (4, 2)
    assert names["agreed"].n == 2
    shown = {part for part in page.text.split("`") if part.startswith("coda.")}
    for path in map(Path, (ROOT / f"{name.replace('.', '/')}.py" for name in modules())):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ">>> " in (ast.get_docstring(node) or ""):
                assert f"{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}.{node.name}" in shown
