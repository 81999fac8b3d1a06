"""Options of every command that reads plates as somebody else left them: what to choose, and what things are called."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from coda.cli.options import (
    SolventsFile,
    TableDecimal,
    TableEncoding,
    TableSeparator,
    channel_mapping,
    table_dialects,
)  # fmt: skip
from coda.cli.selecting import PlateOption, PlatePattern, PlatesFile, plate_filter
from coda.contracts.channels import Role
from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.addresses import spellings
from coda.plates.file_references import Moved
from coda.plates.jump.selection import PlateFilter
from coda.plates.readers.assemble import Identity
from coda.plates.readers.choosing import MADE
from coda.plates.readers.layouts import LAYOUTS
from coda.plates.readers.listing import PROJECTIONS
from coda.plates.readers.read_options import ReadOptions
from coda.plates.solvents import read_solvents
from coda.plates.tree import Tree

AUTO = "auto"
Listed = list[str] | None


@dataclass(frozen=True)
class ReadingOptions:
    """What a person says of plates as somebody else left them; see the options' own help."""

    layout: Annotated[str, typer.Option(help=f"How the images are laid out: auto, {', '.join(LAYOUTS)}.")] = AUTO
    modality: Annotated[Literal["widefield", "confocal"] | None, typer.Option(help="If the files do not say.")] = None
    pixel_size: Annotated[float | None, typer.Option(help="Edge of a stored pixel in micrometres.")] = None
    bit_depth: Annotated[int | None, typer.Option(help="Bits of the grey values, if the files do not say.")] = None
    plate_wells: Annotated[int | None, typer.Option(help="Wells of the plate format, if the files do not say.")] = None
    plate_map: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the wells of all plates; without it each is an unknown treatment, and none is a control."
        ),
    ] = None
    channel: Annotated[
        Listed,
        typer.Option(
            help="NAME=CHANNEL: what a channel of the folder is called in the delivery, such as 'Cy5=Mito' or "
            "'w2=Actin'; NAME=none leaves one out; may repeat."
        ),
    ] = None
    role: Annotated[
        Listed,
        typer.Option(
            help=f"CHANNEL=ROLE: what a channel shows ({', '.join(get_args(Role))}), if its name does not say it."
        ),
    ] = None
    colour: Annotated[Listed, typer.Option(help="CHANNEL=RRGGBB: its colour in pictures; may repeat.")] = None
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression of the images' paths with groups well, channel, ...; for --layout pattern."
        ),
    ] = None
    plate: PlateOption = None
    plates: PlatesFile = None
    plate_pattern: PlatePattern = None
    plane: Annotated[
        Listed,
        typer.Option(
            help=f"Plane of stacks, as the instrument numbers it, or {', '.join(PROJECTIONS)}, {MADE}; "
            "STAIN=PLANE for one stain; may repeat."
        ),
    ] = None
    time: Annotated[int | None, typer.Option(help="Time point, as the instrument numbers it.")] = None
    acquisition: Annotated[
        str | None, typer.Option(help="Acquisition to take: id, name, or folder of a measurement.")
    ] = None
    join: Annotated[
        bool,
        typer.Option("--join-acquisitions", help="Acquisitions are stainings of the same fields: put them together."),
    ] = False
    image: Annotated[
        str | None,
        typer.Option(
            help="Which of several images of a field counts, by the name of one; 'all' for fields of their own."
        ),
    ] = None
    rename: Annotated[Listed, typer.Option(help="PLATE=NAME: call a plate otherwise in the delivery; may repeat.")] = (
        None
    )
    moved: Annotated[
        Listed,
        typer.Option(help="OLD=NEW: what tables name below folder OLD lies below NEW (of the tree) now; may repeat."),
    ] = None
    solvents: SolventsFile = None
    table_separator: TableSeparator = None
    table_encoding: TableEncoding = None
    table_decimal: TableDecimal = None
    work: Annotated[
        Path, typer.Option("--work", help="Folder that keeps digests of images that stay, so that a call can resume.")
    ] = Path("runs/manifests")

    def identity(self, source: str, batch: str, instrument: str) -> Identity:
        """Return what a delivery is called, and what the tree does not say.

        Raises:
            ConfigError: An option cannot be understood, or the list of solvents not be read.
        """
        return Identity(
            source=source, batch=batch, instrument=instrument, modality=self.modality, bit_depth=self.bit_depth,
            pixel_size_um=self.pixel_size, plate_wells=self.plate_wells, plate_map=self.plate_map,
            solvents=read_solvents(self.solvents) if self.solvents is not None else None,
            roles=roles_given(self.role), colours=colours_given(self.colour),
        )  # fmt: skip

    def wanted(self, types: Listed = None) -> PlateFilter:
        """Return which plates are asked for."""
        return plate_filter(types, self.plate, self.plates, self.plate_pattern)

    def read_options(
        self, batch: str | None, plates: PlateFilter, tables: Sequence[Path | None], trees: Sequence[Tree], *,
        sparse: bool = False,
    ) -> ReadOptions:  # fmt: skip
        """Return what the user says about a tree.

        Args:
            batch: Batch of the tree, where it holds several.
            plates: What `wanted` returned.
            tables: Tables that the command line names.
            trees: Folders whose tables are read.
            sparse: Whether chunks that are absent stand for fill values.

        Raises:
            ConfigError: An option cannot be understood; all of them together.
        """
        problems: list[Problem] = []
        default, single = _planes(self.plane or [], problems)
        renames = _pairs("--rename", self.rename or [], problems)
        moves = _pairs("--moved", self.moved or [], problems)
        options = ReadOptions(
            channels=channel_mapping(self.channel or []), pattern=self.pattern, batch=batch, plates=plates.names,
            patterns=plates.patterns, plane=default, planes=single, time=self.time, acquisition=self.acquisition,
            join=self.join, image=self.image, sparse=sparse, renames=dict(renames),
            tables=table_dialects(self.table_separator, self.table_encoding, self.table_decimal, tables, trees),
            moved=tuple(Moved(_parts(old), _parts(new)) for old, new in moves),
        )  # fmt: skip
        if self.join and self.acquisition is not None:
            problems.append(Problem("--join-acquisitions", "--acquisition beside it", "one of them", "Leave one out."))
        raise_if_any(ConfigError, "Options cannot be understood.", problems)
        return options


def roles_given(values: list[str] | None) -> dict[str, Role]:
    """Return channel -> role of options `--role CHANNEL=ROLE`.

    Raises:
        ConfigError: An option is none of this form.
    """
    known = {role: role for role in get_args(Role)}
    found: dict[str, Role] = {}
    for name, text in _stated("--role", values, lambda text: text in known, f"CHANNEL= and one of {', '.join(known)}",
                              "For example --role Hoechst=nuclei."):  # fmt: skip
        found[name] = known[text]
    return found


def colours_given(values: list[str] | None) -> dict[str, str]:
    """Return channel -> colour of options `--colour CHANNEL=RRGGBB`.

    Raises:
        ConfigError: An option is none of this form.
    """
    colour = re.compile("[0-9A-Fa-f]{6}")
    pairs = _stated("--colour", values, lambda text: bool(colour.fullmatch(text)), "CHANNEL= and 6 hexadecimal digits",
                    "For example --colour Actin=FF00FF.")  # fmt: skip
    return dict(pairs)


def _stated(
    option: str, values: list[str] | None, fits: Callable[[str], bool], expected: str, example: str
) -> list[tuple[str, str]]:
    pairs = [(name.strip(), text.strip()) for name, _, text in (value.rpartition("=") for value in values or ())]
    problems = [
        Problem(option, repr(f"{name}={text}" if name else text), expected, example)
        for name, text in pairs
        if not name or not fits(text)
    ]
    said: dict[str, str] = {}
    for name, text in pairs:
        if said.setdefault(name, text) != text:
            problems.append(Problem(option, f"{name}={said[name]} and {name}={text}", "one of them", "Leave one out."))
    raise_if_any(ConfigError, f"{option} cannot be understood.", problems)
    return pairs


def _planes(values: list[str], problems: list[Problem]) -> tuple[int | str | None, dict[str, int | str]]:
    default: int | str | None = None
    single: dict[str, int | str] = {}
    for value in values:
        stain, equals, text = value.rpartition("=")
        wish = int(text) if text.isascii() and text.isdigit() else text
        if isinstance(wish, str) and wish not in {*PROJECTIONS, MADE}:
            expected = f"a number, {', '.join(PROJECTIONS)} or {MADE}, with STAIN= before it for one stain"
            problems.append(Problem("--plane", repr(value), expected, "For example --plane DNA=2 or --plane maximum."))
        elif (equals and stain in single) or (not equals and default is not None):
            problems.append(Problem("--plane", f"{value} beside another one", "one choice", "Leave one out."))
        elif equals:
            single[stain] = wish
        else:
            default = wish
    return default, single


def _pairs(name: str, values: list[str], problems: list[Problem]) -> list[tuple[str, str]]:
    pairs = [value.rpartition("=") for value in values]
    for value, (old, equals, new) in zip(values, pairs, strict=True):
        if not equals or not old or (name == "--rename" and not new):
            problems.append(Problem(name, repr(value), "OLD=NEW", f"For example {name} 'old name=new'."))
    return [(old, new) for old, equals, new in pairs if equals and old]


def _parts(text: str) -> tuple[str, ...]:
    return next(iter(spellings(text).values()))
