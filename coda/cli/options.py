"""Options that several sub-commands share."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from coda.config import Params, load_params
from coda.errors import ConfigError, Problem
from coda.plates.tabular.dialect import Dialects, dialects_of
from coda.plates.tree import Tree


class EngineChoice(StrEnum):
    """Engines that pipelines run on: the names in `coda.runners.engines`, which is imported when one is used."""

    local = "local"
    docker = "docker"
    kfp = "kfp"


Engine = Annotated[EngineChoice, typer.Option("--runner", help="Processes, containers, or Kubeflow.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="Complete parameter file.")]
Overlays = Annotated[list[Path], typer.Option("--overlay", help="File with only the keys it changes; may repeat.")]
Settings_ = Annotated[list[str], typer.Option("--set", help="One change as dotted.path=value; may repeat.")]

TableSeparator = Annotated[
    list[str] | None,
    typer.Option(help="Separator of the values of tables: comma, semicolon, tab, bar; FILE=semicolon for one table."),
]
TableEncoding = Annotated[
    list[str] | None, typer.Option(help="Encoding of tables, such as cp1252 or utf-16; FILE=cp1252 for one table.")
]
TableDecimal = Annotated[
    list[str] | None, typer.Option(help="Decimal sign of tables: point or comma; FILE=comma for one table.")
]
SolventsFile = Annotated[
    Path | None, typer.Option("--solvents", help="Your list of solvents, which no treatment may be (docs/plates.md).")
]

NamedParams = Annotated[
    Path | None,
    typer.Option(
        "--params",
        help="Complete parameter file, all of which is stated; else ./params.yaml, of which nothing is.",
        show_default=False,
    ),
]
"""For commands that use what a model records: only what is stated is held against the record."""

TABLES = (".csv", ".txt", ".tsv", ".gz", ".parquet")
"""Endings of tables."""

DEFAULT_PARAMS = Path("params.yaml")


def read_params(params: Path, overlays: list[Path] | None, changes: list[str] | None) -> Params:
    """Return the parameters a command line asks for."""
    return load_params(params, overlays or (), changes or ())


def taking(options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what gives a command all options of a dataclass beside its own, as one value: its first argument."""
    shared = [
        Parameter(
            item.name, Parameter.KEYWORD_ONLY,
            default=[] if item.default is MISSING else item.default, annotation=item.type,
        )
        for item in fields(options)
    ]  # fmt: skip

    def to_command(command: Callable[..., None]) -> Callable[..., None]:
        own = [it.replace(kind=Parameter.KEYWORD_ONLY) for it in list(signature(command).parameters.values())[1:]]

        @wraps(command)
        def with_options(**given: Any) -> None:
            command(options(**{item.name: given.pop(item.name) for item in shared}), **given)

        # what typer reads of a function
        with_options.__signature__ = Signature([*shared, *own])  # type: ignore[attr-defined]
        with_options.__annotations__ = {item.name: item.annotation for item in [*shared, *own]}
        return with_options

    return to_command


def table_dialects(
    separators: list[str] | None, encodings: list[str] | None, decimals: list[str] | None,
    paths: Sequence[Path | None], trees: Sequence[Tree],
) -> Dialects:  # fmt: skip
    """Return how tables are written, as options say.

    Args:
        separators: Values of `--table-separator`.
        encodings: Values of `--table-encoding`.
        decimals: Values of `--table-decimal`.
        paths: Tables that the command line names.
        trees: Folders whose tables are read; they are listed only when an option names one table.

    Raises:
        ConfigError: An option cannot be understood, or is about a table that nobody reads.
    """
    dialects = dialects_of(separators or (), encodings or (), decimals or ())
    if dialects.named:
        listed = (file.path for tree in trees for file in tree.files() if file.path.lower().endswith(TABLES))
        dialects.require_used([*(str(path) for path in paths if path is not None), *listed])
    return dialects


def channel_mapping(values: list[str]) -> dict[str, str]:
    """Return channel -> name in the delivery, of options `--channel NAME=CHANNEL`.

    Raises:
        ConfigError: An option is none of this form.
    """
    pairs = [value.rpartition("=") for value in values]
    wrong = [value for value, pair in zip(values, pairs, strict=True) if not pair[0] or not pair[2]]
    if wrong:
        problem = Problem("--channel", ", ".join(wrong), "NAME=CHANNEL", "For example --channel 'Alexa 568=AGP'.")
        raise ConfigError("A channel cannot be understood.", [problem])
    return {name: stain for name, _, stain in pairs}
