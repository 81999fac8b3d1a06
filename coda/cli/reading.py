"""Options of every command that reads plates as somebody else left them: what to choose, and what things are called."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from coda.cli.options import channel_mapping
from coda.contracts.channels import Role
from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.addresses import spellings
from coda.plates.file_references import Moved
from coda.plates.jump.selection import PlateFilter
from coda.plates.readers.choosing import MADE
from coda.plates.readers.layouts import LAYOUTS
from coda.plates.readers.listing import PROJECTIONS
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tabular.dialect import Dialects

DIGESTS = Path("runs/manifests")
DigestsFolder = Annotated[
    Path, typer.Option("--work", help="Folder that keeps digests of images that stay, so that a call can resume.")
]
LayoutOption = Annotated[str, typer.Option(help=f"How the images are laid out: auto, {', '.join(LAYOUTS)}.")]
ModalityOption = Annotated[Literal["widefield", "confocal"] | None, typer.Option(help="If the files do not say.")]
PixelSizeOption = Annotated[float | None, typer.Option(help="Edge of a stored pixel in micrometres.")]
BitDepthOption = Annotated[int | None, typer.Option(help="Bits of the grey values, if the files do not say.")]
PlateWellsOption = Annotated[int | None, typer.Option(help="Wells of the plate format, if the files do not say.")]
PlateMapOption = Annotated[
    Path | None,
    typer.Option(
        help="CSV with the wells of all plates; without it each is an unknown treatment, and none is a control."
    ),
]
PatternOption = Annotated[
    str | None,
    typer.Option(help="Regular expression of the images' paths with groups well, channel, ...; for --layout pattern."),
]
PlaneOption = Annotated[
    list[str] | None,
    typer.Option(
        help=f"Plane of stacks, as the instrument numbers it, or {', '.join(PROJECTIONS)}, {MADE}; "
        "STAIN=PLANE for one stain; may repeat."
    ),
]
TimeOption = Annotated[int | None, typer.Option(help="Time point, as the instrument numbers it.")]
AcquisitionOption = Annotated[
    str | None,
    typer.Option(help="Acquisition to take: id, name, or folder of a measurement."),
]
JoinOption = Annotated[
    bool, typer.Option("--join-acquisitions", help="Acquisitions are stainings of the same fields: put them together.")
]
ImageOption = Annotated[
    str | None,
    typer.Option(help="Which of several images of a field counts, by the name of one; 'all' for fields of their own."),
]
SparseOption = Annotated[
    bool, typer.Option("--sparse", help="Chunks that are absent were never written: they stand for the fill value.")
]
ChannelOption = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=CHANNEL: what a channel of the folder is called in the delivery, such as 'Cy5=Mito' or 'w2=Actin'; "
        "NAME=none leaves one out; may repeat."
    ),
]
RoleOption = Annotated[
    list[str] | None,
    typer.Option(
        help=f"CHANNEL=ROLE: what a channel shows ({', '.join(get_args(Role))}), if its name does not say it."
    ),
]
ColourOption = Annotated[list[str] | None, typer.Option(help="CHANNEL=RRGGBB: its colour in pictures; may repeat.")]
RenameOption = Annotated[
    list[str] | None, typer.Option(help="PLATE=NAME: call a plate otherwise in the delivery; may repeat.")
]
MovedOption = Annotated[
    list[str] | None,
    typer.Option(help="OLD=NEW: what tables name below folder OLD lies below NEW (of the tree) now; may repeat."),
]


def read_options_of(
    *,
    channels: list[str] | None,
    pattern: str | None,
    batch: str | None,
    plates: PlateFilter,
    planes: list[str] | None,
    time: int | None,
    acquisition: str | None,
    join: bool,
    image: str | None,
    sparse: bool,
    renames: list[str] | None,
    moved: list[str] | None,
    tables: Dialects,
) -> ReadOptions:
    """Return what the user says about a tree.

    Raises:
        ConfigError: An option cannot be understood; all of them together.
    """
    problems: list[Problem] = []
    default, single = _planes(planes or [], problems)
    options = ReadOptions(
        channels=channel_mapping(channels or []),
        pattern=pattern,
        batch=batch,
        plates=plates.names,
        patterns=plates.patterns,
        plane=default,
        planes=single,
        time=time,
        acquisition=acquisition,
        join=join,
        image=image,
        sparse=sparse,
        renames=dict(_pairs("--rename", renames or [], problems)),
        tables=tables,
        moved=tuple(Moved(_parts(old), _parts(new)) for old, new in _pairs("--moved", moved or [], problems)),
    )
    if join and acquisition is not None:
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
