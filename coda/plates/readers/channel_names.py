"""What a channel is called in a delivery, by the names that instruments and people give it; never by a bare number."""

import re
from collections.abc import Mapping

from coda.contracts.channels import LEFT_OUT, STAINS, is_transmitted, name_fault

_DYES = {
    "hoechst": "DNA", "dapi": "DNA", "concanavalin": "ER", "syto14": "RNA", "phalloidin": "AGP", "wheatgerm": "AGP",
    "mitotracker": "Mito",
}  # fmt: skip
"""Parts of names of dyes that stain one thing only -> stain. Names of filters (FITC, Cy3) say nothing of the kind."""

_NAMES = {stain.casefold(): stain for stain in STAINS} | {"mitochondria": "Mito", "nuclei": "DNA"}


_NUMBERED = re.compile(r"(ch|c|w|chan|channel|wave|wavelength)?[_-]?[0-9]+", re.IGNORECASE)
"""Names that only count (`ch2`, `w3`, `4`): laboratories differ in what they mean by them."""


class Channels:
    """Names of channels in a tree -> in a delivery: what the user says, what the layout knows, what a name says."""

    def __init__(
        self, given: Mapping[str, str], known: Mapping[str, str] | None = None, *, named_by_people: bool = False
    ) -> None:
        """Keep both.

        Args:
            given: The user's channel -> name in the delivery, or `LEFT_OUT`; upper and lower case are the same.
            known: Names that the layout knows; those of channels that the user has given away do not count.
            named_by_people: The names were written by a person, in a table: those that are valid stand for themselves,
                but for numbers (`ch2`), and for transmitted light, which is kept when it is asked
                for. Names of an instrument (filters, numbers) do not.
        """
        taken = set(given.values())
        self._named_by_people = named_by_people
        self._given = {name.strip().casefold(): stain for name, stain in given.items()}
        self._known = {name.casefold(): stain for name, stain in (known or {}).items() if stain not in taken}
        self._taken = taken
        self.seen: dict[str, None] = {}
        """Names that channels were called by, in the order they were met."""
        self.remarks: dict[str, str] = {}
        """Remarks on channels that hold two stains, by channel."""

    def stain(self, *names: str) -> str | None:
        """Return what a channel is called that goes by several names (name, number); None when it is left out.

        A channel whose name joins two stains (`ERRNA`, as where ER and RNA are imaged through one filter) stands for
        the first of them in the usual order; that the other is absent is kept in `remarks`.
        """
        self.seen.update(dict.fromkeys(name.strip() for name in names if name.strip()))
        keys = [name.strip().casefold() for name in names if name.strip()]
        for known in (self._given, self._known):
            for key in keys:
                if key in known:
                    return None if known[key] == LEFT_OUT else known[key]
        for name in names:
            stain = named(name) or self._joint(name)
            if stain is not None:
                if stain not in self._taken:
                    return stain
                return None  # the user has called another channel so
        return self._own(names[0]) if self._named_by_people else None

    def _own(self, name: str) -> str | None:
        kept = name.strip()
        given_away = kept.casefold() in {taken.casefold() for taken in self._taken}
        says = not (name_fault(kept) or is_transmitted(kept) or _NUMBERED.fullmatch(kept))
        return kept if says and not given_away else None

    def _joint(self, name: str) -> str | None:
        text = _plain(name)
        for first in STAINS:
            for second in STAINS[STAINS.index(first) + 1 :]:
                if text in {(first + second).casefold(), (second + first).casefold()}:
                    self.remarks[name] = (
                        f"{first} and {second} share the channel {name!r}; it stands for {first}, and there is no "
                        f"separate {second} stain"
                    )
                    return first
        return None


def named(name: str) -> str | None:
    """Return the stain that a name is, or whose dye it names; None when it says neither, or two of them."""
    text = _plain(name)
    if text in _NAMES:
        return _NAMES[text]
    found = {stain for dye, stain in _DYES.items() if dye in text}
    # a list of channels is none of them
    found |= {_NAMES[word] for part in re.split(r"[,;/|+]", name[:200]) if (word := _plain(part)) in _NAMES}
    return found.pop() if len(found) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name[:200].casefold())
