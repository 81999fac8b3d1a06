"""The one assembler of plates: every reader gives it images, one after the other, and gets the listing of a plate."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.layout import FORMATS, fits, well_name
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.choosing import Chooser, Shot, Shots
from coda.plates.readers.listing import FieldListing, ImageRef, PlateListing
from coda.plates.readers.read_options import MAX_SHOWN, ReadOptions, few, plain

MAX_SITE = 9999
LARGEST = max(FORMATS)


class PlateBuilder:
    """Images of one plate as they are found; what is wrong with them is kept for the end.

    All readers give every image of a stain with the plane, time point and acquisition it is of; which of them stands
    for a field is decided here, by one rule (`coda.plates.readers.choosing`), when all are known.
    """

    def __init__(
        self,
        present: Collection[str],
        channels: Channels,
        *,
        options: ReadOptions,
        where: str = "",
        wells: int | None = None,
        once: str = "",
    ) -> None:
        """Start with nothing.

        Args:
            present: Paths of the files that the tree holds (a set, or the like).
            channels: What channels are called; plates of one tree may share it.
            options: What the user chose among planes, time points and acquisitions.
            where: The plate, for messages.
            wells: Wells of the plate format, where it is known.
            once: What a field should have of each stain, for messages.
        """
        self.channels = channels
        self._present = present
        self._options = options
        self._where = where
        self._wells = wells or LARGEST
        self._once = once or "one image of each stain, plane and time point"
        self._shots: Shots = {}
        self._marks: dict[tuple[int, int, int], set[tuple[str, int | None]]] = {}
        self._absent: list[str] = []
        self._twice: list[tuple[str, str]] = []
        self._files: dict[tuple[int, int, int], dict[str, ImageRef]] | None = None
        self._told: list[str] = []
        self.acquisitions: dict[str, str] = {}
        """Id of an acquisition -> its name, as far as the plate lists them."""
        self.left_out: Counter[str] = Counter()
        self._faults: list[Problem] = []

    def stain(self, *names: str, told: str) -> str | None:
        """Return the stain of a channel of these names; None, and count the image as `told`, where it is left out."""
        stain = self.channels.stain(*names)
        if stain is None:
            self.left_out[plain(told)] += 1
        return stain

    def add(
        self,
        place: tuple[int, int],
        site: int,
        stain: str | None,
        image: ImageRef,
        *,
        where: str,
        plane: int | None = None,
        time: int | None = None,
        acquisition: str = "",
    ) -> None:
        """Take one image; a field keeps its place on the plate even when its file is not there.

        Args:
            place: Row and column from 0.
            site: Number of the field as the instrument counts.
            stain: Stain by name; None for an image that shall only be counted, since it must not be used.
            image: The image, relative to the tree.
            where: The entry that names it, for messages.
            plane: Plane as the instrument counts; `PROJECTION` for one it made of several, None where it has none.
            time: Time point as the instrument counts; None where it has none.
            acquisition: Id of the acquisition; empty where there are none.
        """
        rows, columns = FORMATS[self._wells]
        if min(place) < 0 or not fits(place, self._wells) or not 0 <= site <= MAX_SITE:
            found = f"row {place[0] + 1}, column {place[1] + 1}, site {site}"
            expected = f"rows 1 to {rows}, columns 1 to {columns} ({self._wells} wells), sites 0 to {MAX_SITE}"
            self.fault(where, found, expected)
            return
        key = (*place, site)
        self._marks.setdefault(key, set()).add((acquisition, time))
        if stain is None:
            return
        shots = self._shots.setdefault((key, stain), {})
        shot = Shot(acquisition, time, plane)
        if shot in shots:
            self._twice.append(
                (where, f"{stain} of well {well_name(*place)}, site {site} a second time ({image.path})")
            )
        else:
            shots[shot] = image

    def named(self, plate: str) -> "PlateBuilder":
        """Say which plate it is, for messages; returns itself."""
        self._where = plate
        return self

    def miss(self, place: tuple[int, int], site: int, name: str, *, where: str) -> None:
        """Keep a field and the name of an image of it that is not there; the arguments are those of `add`."""
        self._absent.append(name)
        self.add(place, site, None, ImageRef(name), where=where)

    def fault(self, where: str, found: str, expected: str) -> None:
        """Keep a problem that forbids the import."""
        remedy = "Correct it where it was exported, or name the files in a load_data table (docs/instruments.md)."
        self._faults.append(Problem(plain(where, MAX_SHOWN), plain(found, MAX_SHOWN), expected, remedy))

    def fields(self) -> tuple[FieldListing, ...]:
        """Return the fields in the order of rows, columns and sites."""
        files = self._settled()
        return tuple(FieldListing(key[:2], key[2], files[key]) for key in sorted(files))

    def problems(self) -> list[Problem]:
        """Return what forbids the import, the first cause first."""
        self._settled()
        return self._faults

    def notes(self) -> tuple[str, ...]:
        """Return what is worth telling: what was not chosen, and files that are named but not there."""
        self._settled()
        if not self._absent:
            return tuple(self._told)
        first = min(self._absent)
        said = f"{len(self._absent)} image(s) named by the index are not there (the first: {first})"
        return (*self._told, said)

    def listing(self, plate: str, notes: Iterable[str] = (), **facts: Any) -> PlateListing:
        """Return the plate, after `check`.

        Args:
            plate: Its name.
            notes: What is worth telling first.
            facts: What the instrument's files say beside: other attributes of a `PlateListing`.
        """
        return PlateListing(
            plate=plate,
            acquisitions=tuple(text for pair in self.acquisitions.items() for text in pair if text),
            channels=tuple(self.channels.seen),
            fields=self.fields(),
            left_out=dict(self.left_out),
            notes=(*notes, *self.channels.remarks.values(), *self.notes()),
            **facts,
        )

    def _settled(self) -> dict[tuple[int, int, int], dict[str, ImageRef]]:
        """Return the image of each stain of each field, chosen once."""
        if self._files is not None:
            return self._files
        if self._twice:
            where, found = self._twice[0]
            more = f"; and {len(self._twice) - 1} more images likewise" if len(self._twice) > 1 else ""
            self.fault(where, found + more, self._once)
        chooser = Chooser(self._options, self.acquisitions, self._where)
        chosen = chooser.choose(self._shots)
        self._faults += chooser.problems
        self._told += chooser.notes
        kept = {key for key, marks in self._marks.items() if any(chooser.keeps(*mark) for mark in marks)}
        self._files = {key: {} for key in sorted(kept)}
        for (key, stain), image in chosen.items():
            lost = [part.path for part in image.parts if part.path not in self._present]
            if lost:
                self._absent += lost
            elif key in self._files:
                self._files[key][stain] = image
        return self._files


def format_of_size(rows: int, columns: int) -> int | None:
    """Return the wells of the plate format of this size, or None when it is no usual one."""
    return {size: wells for wells, size in FORMATS.items()}.get((rows, columns))


def check(where: str, gatherings: Iterable[PlateBuilder]) -> None:
    """Raise `ContractError` with the problems of all plates of a tree, if there are any."""
    problems = [problem for builder in gatherings for problem in builder.problems()]
    raise_if_any(ContractError, f"{where} cannot be imported.", few(problems, where))
