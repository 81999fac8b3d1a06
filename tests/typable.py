"""What a text tells a person to type, held against what there is: commands, options, parameters, targets, settings."""

import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, TypeAdapter, ValidationError
from typer.exceptions import TyperException

from coda.cli import COMMANDS
from coda.config.params import Params
from coda.settings import Settings

ROOT = Path(__file__).parents[1]
HOLE = "\N{REPLACEMENT CHARACTER}"
"""Stands for what is filled in when the text is shown."""

FILES = ("json", "py", "yaml", "yml", "parquet", "csv", "md", "safetensors", "zip")


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


def wrong_call(line: str) -> str | None:
    """Say why a whole command line would be refused: an option without its value, a word too many or too few."""
    node, rest = command(shlex.split(line)[1]), shlex.split(line)[2:]
    while hasattr(node, "commands") and rest and rest[0] in node.commands:
        node, rest = node.commands[rest[0]], rest[1:]
    if hasattr(node, "commands"):
        return f"no such command: {rest[0]}" if rest and rest != ["--help"] else None
    if rest == ["--help"]:
        return None
    context = node.context_class(node)
    try:
        given, left, _ = node.make_parser(context).parse_args(args=rest)
    except TyperException as error:
        return str(error) or type(error).__name__
    absent = [parameter.name for parameter in node.params if parameter.required and not given.get(parameter.name)]
    return f"too much: {left}" if left else f"without {', '.join(absent)}" if absent else None


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
