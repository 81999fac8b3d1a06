"""Which stain a channel holds, by the names that instruments and people give it; never by a bare number of its own."""

import re
from collections.abc import Mapping

from coda.contracts.manifest import STAINS

NONE = "none"
"""What a user maps a channel to that shall be left out."""

_DYES = {
    "hoechst": "DNA", "dapi": "DNA", "concanavalin": "ER", "syto14": "RNA", "phalloidin": "AGP", "wheatgerm": "AGP",
    "mitotracker": "Mito",
}  # fmt: skip
"""Parts of names of dyes that stain one thing only -> stain. Names of filters (FITC, Cy3) say nothing of the kind."""

_NAMES = {stain.casefold(): stain for stain in STAINS} | {"mitochondria": "Mito", "nuclei": "DNA"}


class Channels:
    """Channel names -> stains: what the user says, then what the layout knows, then what a name says by itself."""

    def __init__(self, given: Mapping[str, str], known: Mapping[str, str] | None = None) -> None:
        """Keep both.

        Args:
            given: The user's channel -> stain, or `NONE`; upper and lower case are the same.
            known: Names that the layout knows; those of stains that the user has given away do not count.
        """
        taken = set(given.values())
        self._given = {name.strip().casefold(): stain for name, stain in given.items()}
        self._known = {name.casefold(): stain for name, stain in (known or {}).items() if stain not in taken}
        self._taken = taken
        self.seen: dict[str, None] = {}
        """Names that channels were called by, in the order they were met."""
        self.remarks: dict[str, str] = {}
        """Remarks on channels that hold two stains, by channel."""

    def stain(self, *names: str) -> str | None:
        """Return the stain of a channel that goes by several names (name, number); None when it is none of ours.

        A channel whose name joins two stains (`ERRNA`, as where ER and RNA are imaged through one filter) stands for
        the first of them in the usual order; that the other is absent is kept in `remarks`.
        """
        self.seen.update(dict.fromkeys(name.strip() for name in names if name.strip()))
        keys = [name.strip().casefold() for name in names if name.strip()]
        for known in (self._given, self._known):
            for key in keys:
                if key in known:
                    return None if known[key] == NONE else known[key]
        for name in names:
            stain = named(name) or self._joint(name)
            if stain is not None and stain not in self._taken:
                return stain
        return None

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
