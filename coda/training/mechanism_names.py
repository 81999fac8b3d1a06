"""Names of mechanisms: which spellings mean the same, and which cells hold several.

A head learns a class for each name. Two spellings of one mechanism would be two classes, and a cell with two mechanisms
a class of its own; neither may happen unseen.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from coda.errors import Problem
from coda.plates.tabular.normal_names import simple
from coda.plates.tabular.wording import NOTHING, plain

BAR = "|"
"""What parts several mechanisms of a cell without being asked for; no name of one has it."""

SEPARATORS: Mapping[str, str] = {
    "bar": BAR, "semicolon": ";", "comma": ",", "slash": "/", "plus": "+", "ampersand": "&", "and": "and",
}  # fmt: skip
"""Name of a separator -> the text; all of them may be named by `--mechanism-separator`."""

OPTION = "--mechanism-separator"

_NO_MECHANISM = NOTHING | {"unknown"}

_ROLE = re.compile(
    r"\b(?:inhibitor|agonist|antagonist|blocker|activator|modulator|stimulant|stimulator|opener|inducer|donor|analog|"
    r"analogue|ligand|releaser|scavenger|chelator|agent|intercalator|degrader|stabilizer|stabiliser|disruptor|"
    r"suppressant|sensitizer|sensitiser|substrate|promoter|enhancer|uncoupler|poison|toxin|antibiotic|hormone)s?$",
    re.IGNORECASE,
)
_PLURAL = re.compile(r"((?:or|er|ist|ant|gen|ent|ogue|og|nd))s$")

_SPLITS: Mapping[str, re.Pattern[str]] = {
    BAR: re.compile(r"\|"),
    ";": re.compile(r"[;；\n]"),
    # '1,3-beta-glucan synthase inhibitor' is one name
    ",": re.compile(r"[，、]|,(?![0-9])|(?<![0-9]),"),
    "/": re.compile(r"/"),
    "+": re.compile(r"\+"),
    "&": re.compile(r"&"),
    "and": re.compile(r"\b(?:and|plus)\b", re.IGNORECASE),
}
_PLAIN = (";", ",")
"""Separators that hardly any name holds: they are asked about wherever they stand; others between two mechanisms."""


def normal(name: str) -> str:
    """Return the form in which mechanisms are compared.

    Without case, accents and kinds of hyphens and blanks ('HDAC-inhibitor' is 'hdac inhibitor'), Greek letters by name,
    and the last word in the singular.
    """
    return _PLURAL.sub(r"\1", re.sub(r"[\s_-]+", " ", simple(name)).strip())


def parted(cell: str, separators: Collection[str] = ()) -> list[str]:
    """Return the mechanisms of a cell; '|' parts them, and what was named."""
    parts = [cell]
    for separator in dict.fromkeys((BAR, *separators)):
        split = _SPLITS.get(separator, re.compile(re.escape(separator)))
        parts = [part for text in parts for part in split.split(text)]
    named = (" ".join(part.split()) for part in parts)
    return [part for part in named if part.casefold() not in _NO_MECHANISM]


def several(name: str, known: Collection[str] = ()) -> str | None:
    """Return the separator by which a name seems to be several, None when it is one.

    Args:
        name: A part of a cell.
        known: Normal forms of other mechanisms of the table.
    """
    text = unicodedata.normalize("NFC", name)
    for separator, split in _SPLITS.items():
        parts = [part.strip() for part in split.split(text)]
        if len(parts) < 2:
            continue
        each = all(part and (_ROLE.search(part) or normal(part) in known) for part in parts)
        if separator in _PLAIN or separator == BAR or each or (separator == "/" and " / " in text):
            return separator
    return None


def doubtful(cells: pd.Series, where: str) -> list[Problem]:
    """Return a problem for each separator by which cells seem to hold several mechanisms."""
    names = [(int(line), part) for line, cell in zip(cells.index, cells, strict=True) for part in parted(cell)]
    known = {normal(part) for _, part in names}
    found: dict[str, list[tuple[int, str]]] = {}
    for line, part in names:
        separator = several(part, known)
        if separator is not None:
            found.setdefault(separator, []).append((line, part))
    return [_asked(separator, those, where) for separator, those in found.items()]


def _asked(separator: str, cells: Sequence[tuple[int, str]], where: str) -> Problem:
    shown = "; ".join(f"{plain(part, 80)!r} in line {line}" for line, part in cells[:5])
    more = f", and {len(cells) - 5} more" if len(cells) > 5 else ""
    option = f"{OPTION} {next(name for name, text in SEPARATORS.items() if text == separator)}"
    remedy = f"Say whether they are several mechanisms ({option}) or names as they stand ({OPTION} bar)."
    return Problem(where, f"{len(cells)} cell(s) that may hold several mechanisms: {shown}{more}",
                   f"one mechanism a cell, or several parted by '{BAR}'", remedy)  # fmt: skip


def spellings(names: Iterable[str]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Choose how each mechanism is written: as most do, of equals the first in alphabetical order.

    Args:
        names: All names, repeated as often as they stand there.

    Returns:
        Name -> how it is shown; and, where there are several spellings, shown name -> all of them.
    """
    forms: dict[str, Counter[str]] = {}
    for name in names:
        forms.setdefault(normal(name), Counter())[name] += 1
    shown: dict[str, str] = {}
    joined: dict[str, tuple[str, ...]] = {}
    for counts in forms.values():
        best = min(counts, key=lambda name: (-counts[name], name.casefold(), name.swapcase()))
        shown |= dict.fromkeys(counts, best)
        if len(counts) > 1:
            joined[best] = tuple(sorted(counts))
    return shown, dict(sorted(joined.items()))
