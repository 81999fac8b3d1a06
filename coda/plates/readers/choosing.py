"""Which image stands for a stain of a field, where there are several: acquisitions, time points, planes.

The rule is the same for all instruments. What differs between fields of a plate is never mixed: where there are several
acquisitions or time points, the user chooses one (or joins acquisitions of the same fields), or the plate is refused
with the list to choose from. Planes are chosen for each stain: a number, a projection that the instrument made, or one
that is made here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from coda.errors import Problem
from coda.plates.readers.listing import PROJECTIONS, ImageRef
from coda.plates.readers.read_options import ReadOptions, plain

PROJECTION = -1
"""Plane of an image that the instrument made of several."""

MADE = "projection"
"""What a user chooses to have the instrument's own projection."""


class Shot(NamedTuple):
    """What tells images of one stain of one field apart."""

    acquisition: str
    time: int | None
    plane: int | None


Field = tuple[int, int, int]
Planes = Counter[int | None]
"""Planes of a stain -> fields that have them."""

Shots = dict[tuple[Field, str], dict[Shot, ImageRef]]


class Chooser:
    """Chooses the images of one plate."""

    def __init__(self, options: ReadOptions, names: Mapping[str, str], where: str) -> None:
        """Keep what the user chose."""
        self._options = options
        self._names = names
        self._where = where or "the plate"
        self._acquisition: str | None = None
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def keeps(self, acquisition: str, time: int | None) -> bool:
        """Return whether a field belongs to what was chosen."""
        right = self._acquisition is None or acquisition == self._acquisition
        return right and (self._options.time is None or time in {self._options.time, None})

    def choose(self, shots: Shots) -> dict[tuple[Field, str], ImageRef]:
        """Return the one image of each stain of each field; what forbids a choice is in `problems`."""
        total = sum(map(len, shots.values()))
        left = self._of_one_time(self._of_one_acquisition(shots))
        planes: dict[str, Planes] = {}
        for (_, stain), images in left.items():
            planes.setdefault(stain, Counter()).update({shot.plane for shot in images})
        self._unknown_stains(planes)
        chosen: dict[tuple[Field, str], ImageRef] = {}
        for stain, counts in planes.items():
            way = self._way(stain, counts, planes)
            lacking = 0
            for key, images in left.items():
                if key[1] == stain:
                    image = way.of({shot.plane: image for shot, image in images.items()}) if way else None
                    lacking += image is None
                    if image is not None:
                        chosen[key] = image
            if way and lacking:
                self.notes.append(f"{lacking} images of {stain} lack {way.words}")
        other = total - sum(len(image.parts) for image in chosen.values())
        if other and not self.problems:
            self.notes.append(f"{other} images of other planes or time points left out")
        return chosen

    def _of_one_acquisition(self, shots: Shots) -> Shots:
        ids = sorted({shot.acquisition for images in shots.values() for shot in images})
        wanted = self._options.acquisition
        if (wanted is None and len(ids) < 2) or ids in ([], [""]):
            return shots  # where a plate has none, a measurement may be meant (`coda.plates.readers.plate_naming`)
        if self._options.join and len(ids) > 1:
            return self._joined(shots, ids)
        fitting = [name for name in ids if wanted in {name, self._names.get(name, name)}]
        if len(fitting) == 1:
            (self._acquisition,) = fitting
            return _only(shots, lambda shot: shot.acquisition == self._acquisition)
        listed = ", ".join(self._called(name) for name in ids[:20]) or "none"
        found = f"the acquisitions {listed}" if wanted is None else f"{wanted!r} among the acquisitions {listed}"
        first = self._names.get(ids[0], ids[0]) if ids else ""
        remedy = f"Choose one (--acquisition {plain(first)!r}); or, where they are stainings of the same fields, "
        self._fault(found, "one acquisition of each field", remedy + "join them (--join-acquisitions).")
        return shots

    def _joined(self, shots: Shots, ids: list[str]) -> Shots:
        """Put acquisitions of the same fields together; a stain that was imaged in several is taken from the first."""
        joined: Shots = {}
        repeated: set[str] = set()
        for key, images in shots.items():
            own = [name for name in ids if any(shot.acquisition == name for shot in images)]
            if len(own) > 1:
                repeated.add(key[1])
            joined[key] = {shot: image for shot, image in images.items() if shot.acquisition == own[0]}
        self.notes.append(f"acquisitions put together: {', '.join(self._called(name) for name in ids)}")
        for stain in sorted(repeated):
            self.notes.append(f"{stain} was imaged in several acquisitions; it is taken from the first that has it")
        return joined

    def _called(self, name: str) -> str:
        title = plain(self._names.get(name, ""))
        return f"{plain(name) or '(none)'}" + (f" ({title})" if title and title != name else "")

    def _of_one_time(self, shots: Shots) -> Shots:
        times = sorted({shot.time for images in shots.values() for shot in images if shot.time is not None})
        wanted = self._options.time
        if wanted is None:
            if len(times) > 1:
                listed = ", ".join(map(str, times[:20]))
                self._fault(f"the time points {listed}", "one time point", f"Choose one (--time {times[0]}).")
            return shots
        if times and wanted not in times:
            listed = ", ".join(map(str, times[:20]))
            self._fault(f"no time point {wanted}, but {listed}", "a time point", f"Choose one (--time {times[0]}).")
        return _only(shots, lambda shot: shot.time in {wanted, None})

    def _unknown_stains(self, planes: Mapping[str, object]) -> None:
        unknown = sorted(set(self._options.planes) - set(planes))
        if unknown and planes:
            remedy = "Correct the name of the stain (--plane STAIN=PLANE)."
            self._fault(f"--plane for {', '.join(map(plain, unknown))}", f"stains among {', '.join(planes)}", remedy)

    def _way(self, stain: str, counts: Planes, everywhere: Mapping[str, Planes]) -> "_Way | None":
        """Return how the image of a stain is found among its planes; None where it must be chosen first."""
        wish = self._options.planes.get(stain, self._options.plane)
        made = self._made(counts)
        numbered = sorted(plane for plane in counts if plane is not None and plane not in made)
        only = _Way(next(iter(counts))) if len(counts) == 1 else None
        way: _Way | None = None
        if isinstance(wish, int):
            way = _Way(wish) if wish in counts else None
            elsewhere = stain not in self._options.planes and any(wish in other for other in everywhere.values())
            if way is None and only and elsewhere:
                self.notes.append(f"{stain} has one plane alone, which is taken")
                way = only
        elif wish == MADE:
            way = _Way(made[0]) if made else only
        elif wish in PROJECTIONS:
            way = only or (_Way(str(wish), tuple(numbered)) if numbered else None)
        elif None in counts:
            way = _Way(None)
        else:
            way = only or (_Way(numbered[0]) if len(numbered) == 1 else None)
        if way is None:
            self._refuse_planes(stain, wish, counts, numbered)
        return way

    def _made(self, counts: Planes) -> list[int | None]:
        """Return the planes that the instrument made of others: 0 where planes count from 1 is ImageXpress's."""
        made: list[int | None] = [plane for plane in (PROJECTION, *self._options.made_planes) if plane in counts]
        return [*made, None] if None in counts and len(counts) > 1 else made

    def _refuse_planes(self, stain: str, wish: int | str | None, counts: Planes, numbered: list[int]) -> None:
        made = self._made(counts)
        names = [f"{plane} (a projection)" if plane in made else str(plane) for plane in sorted(counts, key=_order)]
        names = ["a projection" if name.startswith((str(PROJECTION), "None")) else name for name in names]
        found = f"{stain} in the planes {', '.join(names[:40])}"
        if wish is not None:
            found = f"{found}, but {wish!r} was chosen"
        example = numbered[len(numbered) // 2] if numbered else next(iter(counts))
        remedy = f"Choose one: --plane {stain}={example}, or --plane {stain}=maximum (mean, best-focus"
        self._fault(found, "one plane of each stain", f"{remedy}{', projection' * bool(made)}).")

    def _fault(self, found: str, expected: str, remedy: str) -> None:
        self.problems.append(Problem(self._where, plain(found, 600), expected, remedy))


class _Way(NamedTuple):
    """How the image of a stain is found: one plane, or a projection of several."""

    plane: int | str | None
    stack: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        return f"a plane of {', '.join(map(str, self.stack))}" if self.stack else f"plane {self.plane}"

    def of(self, images: Mapping[int | None, ImageRef]) -> ImageRef | None:
        """Return the image among those of a field; None when it is not there, or a stack is not complete."""
        if not self.stack:
            return images.get(self.plane) if not isinstance(self.plane, str) else None
        if any(plane not in images for plane in self.stack):
            return None
        parts = tuple(images[plane] for plane in self.stack)
        if len(parts) == 1:
            return parts[0]
        return ImageRef(parts[0].path, stack=parts, projection=str(self.plane))


def _only(shots: Shots, keep: Callable[[Shot], bool]) -> Shots:
    found = {key: {shot: image for shot, image in images.items() if keep(shot)} for key, images in shots.items()}
    return {key: images for key, images in found.items() if images}


def _order(plane: int | None) -> int:
    return -2 if plane is None else plane
