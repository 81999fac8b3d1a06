"""What an error tells a person to type can be typed: commands, options, parameters with their values, make targets.

Remedies are collected from the syntax tree, so that a new one is looked at without anybody thinking of it.
"""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.typable import HOLE, ROOT, wrong_commands, wrong_options, wrong_parameters, wrong_settings, wrong_targets


@dataclass(frozen=True)
class Told:
    """A text that a person is told, and where it stands."""

    place: str
    text: str
    about: str = ""


@cache
def told() -> tuple[Told, ...]:
    """Return the remedy of every `Problem`, and every other text of the code that names a command in backquotes."""
    found: list[Told] = []
    for path in sorted((ROOT / "coda").rglob("*.py")):
        content = path.read_text(encoding="utf-8")
        if "Problem(" in content or "`coda " in content:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            reader = Reader(str(path.relative_to(ROOT)), importlib.import_module(name))
            reader.visit(ast.parse(content))
            found += reader.found
    return tuple(dict.fromkeys(found))


class Reader(ast.NodeVisitor):
    """Collects what a module tells people; a name is looked up in the innermost function, then in the module."""

    def __init__(self, path: str, module: Any) -> None:
        self.path, self.module, self.found = path, module, list[Told]()
        self.scope: ast.AST = ast.Module([], [])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self.scope = self.scope, node
        self.generic_visit(node)
        self.scope = outer

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring is not told to anybody
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if getattr(node.func, "id", "") == "Problem":
            named = {keyword.arg: keyword.value for keyword in node.keywords}
            where, remedy = (
                node.args[place] if len(node.args) > place else named.get(name)
                for place, name in ((0, "where"), (3, "remedy"))
            )
            about = self.texts(where)[0] if where is not None else ""
            self.note(node, [text for text in self.texts(remedy) if text != HOLE], about)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        self.note(node, [text for text in self.texts(node) if "`coda " in text])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self.note(node, [text for text in self.texts(node) if "`coda " in text])

    def note(self, node: ast.expr, found: list[str], about: str = "") -> None:
        self.found += [Told(f"{self.path}:{node.lineno}", text, about) for text in found]

    def texts(self, node: ast.expr | None, depth: int = 0) -> list[str]:
        """Return the texts an expression can have; what is only known later is a hole."""
        found = [HOLE]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = [node.value]
        elif isinstance(node, ast.JoinedStr):
            found = [""]
            for part in node.values:
                own = self.texts(part.value if isinstance(part, ast.FormattedValue) else part, depth + 1)
                found = [before + after for before in found for after in own][:32]
        elif isinstance(node, ast.IfExp):
            found = self.texts(node.body, depth) + self.texts(node.orelse, depth)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            found = [a + b for a in self.texts(node.left, depth + 1) for b in self.texts(node.right, depth + 1)]
        elif isinstance(node, ast.Name) and depth < 5:
            values = [text for value in assigned(self.scope, node.id) for text in self.texts(value, depth + 1)]
            known = getattr(self.module, node.id, None)
            found = values or ([known] if isinstance(known, str) else found)
        return found


def assigned(scope: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield what is assigned to a name in a function, tuples taken apart."""
    for node in ast.walk(scope):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name) and target.id == name:
                yield node.value
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                yield from (value for item, value in pairs if isinstance(item, ast.Name) and item.id == name)


def documented() -> Iterator[Told]:
    for name in ("errors.md", "bad_input.md"):
        for number, line in enumerate((ROOT / "docs" / name).read_text(encoding="utf-8").splitlines(), 1):
            yield Told(f"docs/{name}:{number}", line)


def wrong(item: Told) -> list[str]:
    text = item.text
    found = [*wrong_commands(text), *wrong_options(text), *wrong_parameters(text, item.about)]
    return [*found, *wrong_targets(text), *wrong_settings(text)]


def test_every_remedy_in_the_code_can_be_typed():
    items = told()
    assert len(items) > 350, "the walk found too little to say anything"
    assert [f"{item.place}: {fault} (in {item.text!r})" for item in items for fault in wrong(item)] == []


def test_every_remedy_in_the_docs_of_errors_can_be_typed():
    items = list(documented())
    assert [f"{item.place}: {fault}" for item in items for fault in wrong(item)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("See `coda quality shown`.", "no such command"),
        ("Use `coda plate show X`.", "no such command"),
        ("Run `coda step pretrain --run-id 5`.", "no option --run-id"),
        ("Start it with --id NEW.", "no command has the option --id"),
        ("Lower head.valid_batches.", "no parameter head.valid_batches"),
        ("Set compute.precision=float16.", "compute.precision=float16"),
        ("Use crops.eval_grid=0.", "greater than or equal to 1"),
        ("Lower split.validation_batches.", "stands at 1"),
        ("Raise adaptation.candidates or quality.batch_quorums.", "no parameter quality.batch_quorums"),
        ("Run `make everything`.", "no target everything"),
        ("Set CODA_NOTHING.", "no setting CODA_NOTHING"),
    ],
)
def test_what_cannot_be_typed_is_found(text, said):
    assert any(said in fault for fault in wrong(Told("here", text)))


def test_what_can_be_typed_is_not_complained_of():
    for text in (
        "Set compute.precision=float32, extractor.overrides={depth: 3} or --set crops.centre=64.",
        "See `coda registry list`; look at quality.json and gate.json. Set CODA_CHECKPOINTS.",
        "Run `make demo`, `git log --oneline`, or `coda step pretrain --work runs/other`.",
        "Raise crops.centre or lower pretrain.learning_rate.",
    ):
        assert wrong(Told("here", text)) == []
    assert wrong(Told("here", "Lower it.", "split.validation_batches"))
    assert not wrong(Told("here", "Lower it.", "crops.centre"))
