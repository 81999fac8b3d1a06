"""Names of solvents: what a well holds that got no compound is a control, or asked about, and never a treatment."""

import re
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from coda.contracts.yaml_text import parse_yaml
from coda.errors import ConfigError, Problem
from coda.plates.tabular.normal_names import simple

FILE = Path(__file__).with_name("solvents.yaml")

Meaning = Literal["solvent", "unclear"]

_CONCENTRATION = re.compile(r"\d+(?:[.,]\d+)?\s*(?:%|percent\b|per cent\b)|\(?\b[vw]\s*/\s*[vw]\b\)?")
_NUMBER = re.compile(r"\d{1,3}x?")
"""A replicate or a strength beside a name; 'PBS-1086' is a drug."""

_AT_END = re.compile(r"(?<!\d)\d{1,3}$")
_CONTROL = frozenset({"control", "controls", "ctrl", "ctl", "cntrl", "neg", "negative", "negcon", "solvent"})
_TOKEN = re.compile(r"[a-z0-9]+")
_BESIDE = frozenset({
    "control", "controls", "ctrl", "ctl", "cntrl", "con", "only", "alone", "in", "and", "with", "final", "conc", "vol",
    "v", "w", "neg", "negative", "negcon", "solvent", "solution", "well", "wells", "treated", "treatment", "sterile",
    "um", "mm", "nm", "m", "x",
})  # fmt: skip
"""Words beside a solvent's name that do not make another substance of it."""


class Solvents:
    """A list of names of solvents.

    Names are compared without case, accents, blanks, hyphens, concentrations ('0.1% DMSO'), numbers ('DMSO_2') and
    words such as 'control'; several of the list together ('DMSO in PBS') are one, too.
    """

    def __init__(self, names: Collection[str], unclear: Collection[str] = ()) -> None:
        """Keep the names."""
        self._names = {tuple(_tokens(name)) for name in names} - {()}
        self._joined = {"".join(name) for name in self._names}
        self._unclear = {tuple(_tokens(name)) for name in unclear} - {()}

    def meaning(self, name: str) -> Meaning | None:
        """Return what a name of a compound means: a solvent, something that must be asked, or (None) a compound."""
        tokens = _tokens(name)
        if not tokens:
            return None
        whole = tuple(token for token in tokens if not _NUMBER.fullmatch(token))
        if tuple(tokens) in self._names or "".join(tokens) in self._joined:
            return "solvent"
        if whole in self._unclear:
            return "unclear"
        rest = [token for token in whole if token not in _BESIDE]
        if not rest and _CONTROL & set(whole):
            return "unclear"
        return "solvent" if rest and self._made_of(rest) else None

    def _made_of(self, tokens: Sequence[str]) -> bool:
        """Return whether names of the list, one after the other, make up a text."""
        if not tokens:
            return True
        for count in range(1, len(tokens) + 1):
            part = "".join(tokens[:count])
            if (part in self._joined or _AT_END.sub("", part) in self._joined) and self._made_of(tokens[count:]):
                return True
        return False


def _tokens(name: str) -> list[str]:
    return _TOKEN.findall(_CONCENTRATION.sub(" ", simple(name)))


@cache
def packaged() -> Solvents:
    """Return the list that comes with the project."""
    return read_solvents(FILE)


def listed(names: Sequence[str]) -> Solvents:
    """Return the list of `ingest.solvents`: the given names, or the packaged ones where there are none."""
    return Solvents(names) if names else packaged()


def read_solvents(path: Path) -> Solvents:
    """Read a list as `solvents.yaml` is one.

    Raises:
        ConfigError: There is no such file, or it is no such list.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), str(path), "The list of solvents cannot be read.")
    except (OSError, UnicodeDecodeError) as error:
        found = " ".join(str(error).split())[:200]
        problem = Problem(str(path), found, "YAML with a list named solvents", f"Start from a copy of {FILE}.")
        raise ConfigError("The list of solvents cannot be read.", [problem]) from error
    lists = {name: content.get(name, []) for name in ("solvents", "unclear")} if isinstance(content, dict) else {}
    good = all(isinstance(names, list) and all(isinstance(one, str) for one in names) for names in lists.values())
    if not lists or not good or not lists["solvents"]:
        problem = Problem(str(path), str(content)[:100], "the lists solvents and unclear, of texts",
                          f"Start from a copy of {FILE}.")  # fmt: skip
        raise ConfigError("The list of solvents cannot be read.", [problem])
    return Solvents(lists["solvents"], lists["unclear"])
