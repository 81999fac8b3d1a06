"""Channels: the names a laboratory gives them, the five Cell Painting stains as a preset, roles and colours (0023)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
"""The five Cell Painting stains by name, in the field's usual order."""

MAX_CHANNELS = 32
"""Largest number of channels of a batch; every two of them are compared in every field."""

LEFT_OUT = "none"
"""What a channel is mapped to that shall be left out; no channel is called so."""

Role = Literal["nuclei", "cytoplasm", "transmitted"]
"""What a channel shows: nuclei (which are counted), cytoplasm, or transmitted light (brightfield, phase contrast)."""

PRESET_ROLES: Mapping[str, Role] = {
    "DNA": "nuclei", "ER": "cytoplasm", "RNA": "cytoplasm", "AGP": "cytoplasm", "Mito": "cytoplasm",
}  # fmt: skip

PRESET_COLOURS: Mapping[str, str] = {
    "DNA": "0000FF", "ER": "00FF00", "RNA": "FFFF00", "AGP": "FFA500", "Mito": "FF0000",
}  # fmt: skip

TRANSMITTED_COLOUR = "FFFFFF"

PALETTE = ("FF00FF", "00FFFF", "FF8080", "80FF80", "8080FF", "C0C040", "40C0C0", "C040C0")
"""Colours of channels that neither the preset nor the manifest gives one, in the channels' order, round and round."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_USUAL = {stain.casefold(): stain for stain in STAINS}
_TRANSMITTED = re.compile(
    r"(bright ?field|bf|dpc|dic|digital ?phase|phase|transmitted).*|.*(bright ?field|zbf|phase ?contrast)",
    re.IGNORECASE,
)


def name_fault(name: str) -> str:
    """Return what a channel's name should be, where a text is none; empty where it is one."""
    if not _NAME.fullmatch(name) or name.casefold() == LEFT_OUT:
        return "a channel's name: letters, digits, '-' and '_', at most 40, the first a letter or digit, and not 'none'"
    usual = _USUAL.get(name.casefold(), name)
    return "" if usual == name else f"{usual!r}, as this stain is written"


def clashes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of different names that are one but for letter case."""
    spelled: dict[str, dict[str, None]] = {}
    for name in names:
        spelled.setdefault(name.casefold(), {})[name] = None
    return [tuple(group) for group in spelled.values() if len(group) > 1]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return channels in their usual order: the five stains as in `STAINS`, then the others by their letters."""
    given = set(names)
    others = sorted(given - set(STAINS), key=lambda name: (name.casefold(), name))
    return (*(stain for stain in STAINS if stain in given), *others)


def is_transmitted(name: str) -> bool:
    """Return whether a channel's name is one of transmitted light: brightfield, phase contrast, DPC, DIC."""
    return bool(_TRANSMITTED.fullmatch(re.sub(r"[_ -]+", " ", name.strip()[:200])))


def roles_of(names: Iterable[str], stated: Mapping[str, Role]) -> dict[str, Role]:
    """Return the roles that channels play, as stated, else as the preset has them; channels without one are absent.

    Who is stated to show the nuclei is the only one: the preset's DNA shows none then.
    """
    roles: dict[str, Role] = {}
    for name in names:
        role = stated.get(name) or PRESET_ROLES.get(name) or ("transmitted" if is_transmitted(name) else None)
        if role == "nuclei" and name not in stated and "nuclei" in stated.values():
            continue
        if role is not None:
            roles[name] = role
    return roles


def nuclei_of(roles: Mapping[str, Role]) -> str | None:
    """Return the channel that shows the nuclei, None where there is none."""
    return next((name for name, role in roles.items() if role == "nuclei"), None)


def colours_of(names: Sequence[str], stated: Mapping[str, str]) -> dict[str, str]:
    """Return the colour of each channel, six hexadecimal digits: as stated, of the preset, else of the palette."""
    others = [name for name in names if name not in stated and name not in PRESET_COLOURS and not is_transmitted(name)]
    palette = {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(others)}
    return {
        name: stated.get(name) or PRESET_COLOURS.get(name) or palette.get(name, TRANSMITTED_COLOUR) for name in names
    }


def tints_of(
    names: Sequence[str], roles: Mapping[str, Role], colours: Mapping[str, str]
) -> dict[str, tuple[float, float, float]]:
    """Return the light of each channel in a colour picture, red, green and blue, which add up.

    The five in their usual colours have light that is tuned to each other: ER and RNA fill the whole cell and are
    dimmed, or all would be white. Others have their colour, dimmed by their number. Transmitted light is bright
    everywhere and would hide the rest: it has none where there is something else.
    """
    lit = [name for name in names if roles.get(name) != "transmitted"] or list(names)
    dim = min(1.0, 2.0 / max(1, sum(name not in PRESET_COLOURS for name in lit)))
    tints = {}
    for name in names:
        colour = colours.get(name, TRANSMITTED_COLOUR)
        if name not in lit:
            tints[name] = (0.0, 0.0, 0.0)
        elif colour.upper() == PRESET_COLOURS.get(name):
            tints[name] = _TUNED[name]
        else:
            red, green, blue = (int(colour[place : place + 2], 16) / 255 * dim for place in (0, 2, 4))
            tints[name] = (red, green, blue)
    return tints


def words_of(names: Sequence[str], roles: Mapping[str, Role], colours: Mapping[str, str]) -> str:
    """Return how channels are coloured, for a caption: 'DNA blue, Actin #FF00FF, Brightfield not in colour'."""
    tints = tints_of(names, roles, colours)
    return ", ".join(
        f"{name} not in colour" if not any(tints[name])
        else f"{name} {_COLOUR_WORDS.get(name)}" if tints[name] == _TUNED.get(name)
        else f"{name} #{colours.get(name, TRANSMITTED_COLOUR).upper()}"
        for name in names
    )  # fmt: skip


_TUNED: Mapping[str, tuple[float, float, float]] = {
    "DNA": (0.17, 0.39, 1.1),
    "ER": (0.0, 0.28, 0.18),
    "RNA": (0.19, 0.28, 0.0),
    "AGP": (0.7, 0.32, 0.0),
    "Mito": (0.67, 0.04, 0.25),
}
_COLOUR_WORDS = {"DNA": "blue", "ER": "green", "RNA": "yellow-green", "AGP": "orange", "Mito": "pink"}


def listed(names: Iterable[str]) -> str:
    """Return names as a list that a parameter can be set to: those that YAML reads as something else in quotes."""
    return "[" + ",".join(map(in_yaml, names)) + "]"


def in_yaml(name: str) -> str:
    """Return a channel's name as YAML reads it: `488`, `on` and `1e5` are no texts without quotation marks."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) and name.casefold() not in _YAML_WORDS
    return name if plain else f'"{name}"'


_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def _valid(name: str) -> str:
    fault = name_fault(name)
    if fault:
        raise ValueError(fault)
    return name


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        message = f"each channel once, but found {list(names)}"
        raise ValueError(message)
    for group in clashes(names):
        message = f"names that differ in more than letter case, but found {' and '.join(group)}"
        raise ValueError(message)
    return names


ChannelName = Annotated[str, AfterValidator(_valid), Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$"})]
"""A channel by name, see `name_fault`."""

ChannelNames = Annotated[
    tuple[ChannelName, ...], Field(min_length=1, max_length=MAX_CHANNELS), AfterValidator(_distinct)
]
Colour = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{6}$")]
