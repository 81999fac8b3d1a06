"""Gathering the images of one plate, one after the other, whatever named them."""

from collections import Counter
from collections.abc import Collection, Iterable

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.adopt.finding import MAX_SHOWN, few, plain
from coda.plates.adopt.found import FoundField, ImageRef
from coda.plates.layout import FORMATS, fits, well_name

MAX_SITE = 9999
LARGEST = max(FORMATS)


class Gathering:
    """Images of one plate as they are found; what is wrong with them is kept for the end."""

    def __init__(self, present: Collection[str], *, wells: int | None = None, once: str) -> None:
        """Start with nothing.

        Args:
            present: Paths of the files that the tree holds (a set, or the like).
            wells: Wells of the plate format, where it is known.
            once: What a field should have of each stain, for messages: 'one plane and one time point a stain'.
        """
        self._present = present
        self._wells = wells or LARGEST
        self._once = once
        self._sites: dict[tuple[int, int, int], dict[str, ImageRef]] = {}
        self._named: set[tuple[int, int, int, str]] = set()
        self._absent: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.problems: list[Problem] = []

    def add(self, place: tuple[int, int], site: int, stain: str | None, image: ImageRef, *, where: str) -> None:
        """Take one image; a field keeps its place on the plate even when its file is not there.

        Args:
            place: Row and column from 0.
            site: Number of the field as the instrument counts.
            stain: Stain by name; None for an image that shall only be counted, since it must not be used.
            image: The image, relative to the tree.
            where: The entry that names it, for messages.
        """
        rows, columns = FORMATS[self._wells]
        if min(place) < 0 or not fits(place, self._wells) or not 0 <= site <= MAX_SITE:
            found = f"row {place[0] + 1}, column {place[1] + 1}, site {site}"
            expected = f"rows 1 to {rows}, columns 1 to {columns} ({self._wells} wells), sites 0 to {MAX_SITE}"
            self.fault(where, found, expected)
            return
        files = self._sites.setdefault((*place, site), {})
        if stain is None:
            return
        key = (*place, site, stain)
        if key in self._named:
            found = f"{stain} of well {well_name(*place)}, site {site} a second time ({image.path})"
            self.fault(where, found, self._once)
        elif image.path not in self._present:
            self._absent.append(image.path)
        else:
            files[stain] = image
        self._named.add(key)

    def leave_out(self, channel: str) -> None:
        """Count an image of a channel that is no stain of ours, under the channel's name."""
        self.left_out[plain(channel)] += 1

    def miss(self, place: tuple[int, int], site: int, name: str, *, where: str) -> None:
        """Keep a field and the name of an image of it that is not there; the arguments are those of `add`."""
        self._absent.append(name)
        self.add(place, site, None, ImageRef(name), where=where)

    def fault(self, where: str, found: str, expected: str) -> None:
        """Keep a problem that forbids adoption."""
        remedy = "Correct it where it was exported, or name the files in a load_data table (docs/instruments.md)."
        self.problems.append(Problem(plain(where, MAX_SHOWN), plain(found, MAX_SHOWN), expected, remedy))

    def fields(self) -> tuple[FoundField, ...]:
        """Return the fields in the order of rows, columns and sites."""
        return tuple(FoundField(key[:2], key[2], self._sites[key]) for key in sorted(self._sites))

    def notes(self) -> tuple[str, ...]:
        """Return what is worth telling: files that are named but not there."""
        if not self._absent:
            return ()
        first = min(self._absent)
        return (f"{len(self._absent)} image(s) named by the index are not there (the first: {first})",)


def format_of_size(rows: int, columns: int) -> int | None:
    """Return the wells of the plate format of this size, or None when it is no usual one."""
    return {size: wells for wells, size in FORMATS.items()}.get((rows, columns))


def check(where: str, gatherings: Iterable[Gathering]) -> None:
    """Raise `ContractError` with the problems of all plates of a tree, if there are any."""
    problems = [problem for gathering in gatherings for problem in gathering.problems]
    raise_if_any(ContractError, f"{where} cannot be adopted.", few(problems, where))
