"""What an error tells a person to type can be typed: commands, options, parameters with their values, make targets.

Remedies are collected from the syntax tree, so that a new one is looked at without anybody thinking of it.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, TypeAdapter, ValidationError

from coda.cli import COMMANDS
from coda.config.params import Params
from coda.settings import Settings

ROOT = Path(__file__).parents[1]
HOLE = "\N{REPLACEMENT CHARACTER}"
"""Stands for what is filled in when the error happens."""

FILES = ("json", "py", "yaml", "yml", "parquet", "csv", "md", "safetensors", "zip")


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


@cache
def command(name: str) -> Any:
    return typer.main.get_command(importlib.import_module(f"coda.cli.{name}").app)


def options(node: Any) -> set[str]:
    """Return the options of a command, or of all commands of a group."""
    below = getattr(node, "commands", {}).values()
    return {
        "--help",
        *(o for p in node.params for o in (*p.opts, *p.secondary_opts)),
        *(o for sub in below for o in options(sub)),
    }


@cache
def all_options() -> frozenset[str]:
    return frozenset(option for name in COMMANDS for option in options(command(name)))


def wrong_commands(text: str) -> Iterator[str]:
    """Say which commands of ours do not exist, or lack an option that stands in the same backquotes."""
    quoted = re.findall(r"`(coda\b[^`]*)`", text)
    plain = re.findall(rf"(?<![`\w./-])coda (?:{'|'.join(COMMANDS)})\b[a-z -]*", re.sub(r"`[^`]*`", "", text))
    for line in (*quoted, *plain):
        words = line.split()[1:]
        if not words or words[0].startswith(("-", "<", HOLE)):
            continue
        if words[0] not in COMMANDS:
            yield f"{line!r}: no such command"
            continue
        node, rest = command(words[0]), words[1:]
        while hasattr(node, "commands") and rest and not rest[0].startswith(("-", HOLE)):
            if rest[0] not in node.commands:
                if line in quoted:
                    yield f"{line!r}: no such command"
                break
            node, rest = node.commands[rest[0]], rest[1:]
        if line in quoted:
            yield from (
                f"{line!r}: no option {word}"
                for word in (part.partition("=")[0].rstrip(",.;") for part in rest if part.startswith("--"))
                if word not in options(node)
            )


def wrong_options(text: str) -> Iterator[str]:
    """Say which options outside of foreign commands no command of ours has."""
    without = re.sub(r"`(?!coda\b)\w[^`]*`", "", text)
    for word in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", without):
        if word not in all_options():
            yield f"no command has the option {word}"


def parameter(path: str) -> Any:
    """Return the field of a dotted path; None for one that does not exist, True for one inside a free mapping."""
    kind: Any = Params
    field: Any = None
    for name in path.split("."):
        if field is not None and field.annotation == dict[str, int]:
            return True
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or name not in kind.model_fields:
            return None
        field = kind.model_fields[name]
        kind = field.annotation
    return field


@cache
def present() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return content


def value_of(path: str) -> Any:
    value: Any = present()
    for name in path.split("."):
        value = value[name]
    return value


SECTIONS = "|".join(Params.model_fields)
DOTTED = re.compile(rf"(?<![\w./`-])`?((?:{SECTIONS})(?:\.[a-z_0-9]+)+)(?:=(\{{[^}}]*\}}|\[[^\]]*\]|[\w.-]+))?")


def wrong_parameters(text: str, about: str = "") -> Iterator[str]:
    """Say which parameters do not exist, do not take the value that is named, or cannot be moved as is told."""
    for path, value in DOTTED.findall(text):
        if path.rpartition(".")[2] in FILES:
            continue
        field = parameter(path)
        if field is None:
            yield f"no parameter {path}"
        elif value and field is not True:
            try:
                TypeAdapter(field.rebuild_annotation()).validate_python(yaml.safe_load(value.rstrip(".")))
            except ValidationError as error:
                yield f"{path}={value}: {error.errors()[0]['msg']}"
    for verb, named in re.findall(rf"\b([Ll]ower|[Rr]aise) (?:it|((?:{SECTIONS})(?:\.[a-z_0-9]+)+))", text):
        path = named or (about if re.fullmatch(rf"(?:{SECTIONS})(?:\.[a-z_0-9]+)+", about) else "")
        field = parameter(path) if path else None
        if field is None or field is True or path in ONLY_ABOVE:
            continue
        if value_of(path) in bounds(field, down=verb.lower() == "lower"):
            yield f"{verb} {path}: it stands at {value_of(path)}, and no further value is admitted"


ONLY_ABOVE = {
    "crops.eval_grid": "a grid of 1 repeats no pixel, and needs one copy",
    "adaptation.trainable_blocks": "every extractor has a block",
}
"""Parameters at their lowest value in params.yaml whose errors can only come of a higher one, and why."""


def bounds(field: Any, *, down: bool) -> list[Any]:
    """Return the lowest, or the highest, values that a parameter is admitted to have."""
    kinds = ((Ge, "ge"), (Gt, "gt")) if down else ((Le, "le"), (Lt, "lt"))
    return [getattr(bound, name) for bound in field.metadata for kind, name in kinds if isinstance(bound, kind)]


def wrong_targets(text: str) -> Iterator[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    yield from (f"no target {name}" for name in re.findall(r"`make ([a-z][a-z-]*)", text) if name not in targets)


def wrong_settings(text: str) -> Iterator[str]:
    """Say which variables of ours nothing reads."""
    known = {f"CODA_{name.upper()}" for name in Settings.model_fields} | other_variables()
    for name in re.findall(r"\bCODA_[A-Z0-9_]+\b", text):
        if name not in known:
            yield f"no setting {name}"


@cache
def other_variables() -> frozenset[str]:
    """Variables that the code asks the environment for by name."""
    pattern = re.compile(r"""(?:environ(?:\.get)?\W{1,2}|getenv\(|envvar=|= ?)["'](CODA_[A-Z0-9_]+)["']""")
    return frozenset(n for path in (ROOT / "coda").rglob("*.py") for n in pattern.findall(path.read_text("utf-8")))


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
