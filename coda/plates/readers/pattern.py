"""Plain folders: a regular expression of the user's says what the paths of the images mean."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.layout import parse_well
from coda.plates.readers import match_names
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.plate_builder import PlateBuilder, check
from coda.plates.readers.read_options import ReadOptions, at, few, plain, refusal
from coda.plates.readers.tiff_pages import NoPagesError, pages_of
from coda.plates.tree import Tree

IMAGES = (".tif", ".tiff", ".png")
GROUPS = ("plate", "well", "row", "col", "site", "channel", "plane", "time")

MAX_PATTERN = 1000
MAX_PATH = 500
TIME_LIMIT_S = 60.0
"""How long all names of a tree may take; an ordinary pattern needs a second for a hundred thousand."""

EXAMPLE = r"(?P<plate>[^/]+)/(?P<well>[A-P][0-9]{2})_s(?P<site>[0-9]+)_(?P<channel>[^_/]+)\.tif"

_ONCE = "one file for each field, channel, plane and time point (the pattern's groups)"


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    r"""Return the plates of a tree whose paths match a pattern.

    Args:
        tree: Folder of the images.
        options: A pattern with the named groups `well` (or `row` and `col`, a letter or number and a number),
            and where there are any `channel`, `plate` (else the tree's own name), `site` (else 1), `plane` and `time`;
            and what the groups `channel` stand for. Without `channel`, or where it holds several names parted by
            commas, the pages of a TIFF are its channels.

    Raises:
        ConfigError: There is no pattern, or it is none.
        ContractError: No path matches, a match is no well or number, or a stain of a field has several images.
    """
    pattern = checked_pattern(options.pattern, channel=False)
    images = [file.path for file in tree.files() if file.path.lower().endswith(IMAGES)]
    paths = [path for path in images if len(path) <= MAX_PATH]
    if not paths:
        raise refusal(tree.where, "no image", f"files that end in {', '.join(IMAGES)}")
    matched = matches(pattern, paths, tree.where)
    reader = _Reader(tree, options, set(paths))
    for path, groups in matched.items():
        reader.take(path, groups)
    if not matched:
        remedy = "A pattern must fit the whole path, or its end from a folder on."
        raise refusal(tree.where, f"no path that fits, among them {paths[0]}", f"paths as {pattern}", remedy)
    return reader.plates(len(images) - len(matched))


def checked_pattern(pattern: str | None, *, channel: bool = True) -> str:
    """Return the pattern if it is one.

    Args:
        pattern: A regular expression.
        channel: Whether it must have a group for the channel.

    Raises:
        ConfigError: It is absent, too long, malformed, lacks a group, or has one that nobody reads.
    """
    if not pattern:
        problem = Problem("--pattern", "nothing", "a regular expression", f"For example --pattern '{EXAMPLE}'.")
        raise ConfigError("A plain folder needs a pattern.", [problem])
    found, groups = "", set()
    if len(pattern) > MAX_PATTERN:
        found = f"{len(pattern)} characters"
    else:
        try:
            groups = set(re.compile(pattern).groupindex)
        except (re.error, RecursionError, OverflowError) as error:
            found = f"a pattern that is none ({error})"
    if not found and not ("well" in groups or {"row", "col"} <= groups):
        found = "no group for the well"
    if not found and channel and "channel" not in groups:
        found = "no group for the channel"
    unknown = sorted(groups - set(GROUPS))
    if not found and unknown:
        found = f"the groups {', '.join(unknown)}"
    if found:
        expected = f"a regular expression with groups among {', '.join(GROUPS)}"
        raise ConfigError("The pattern cannot be used.",
                          [Problem("--pattern", found, expected, f"For example --pattern '{EXAMPLE}'.")])  # fmt: skip
    return pattern


def matches(pattern: str, paths: list[str], where: str) -> dict[str, dict[str, str | None]]:
    """Return the named groups of the paths that match.

    Raises:
        ConfigError: Matching takes longer than `TIME_LIMIT_S`.
    """
    request = json.dumps({"pattern": pattern, "paths": paths})
    program = [sys.executable, "-I", "-S", str(Path(match_names.__file__))]
    try:
        done = subprocess.run(program, input=request, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        found = f"no end after {TIME_LIMIT_S:g} s for {len(paths)} paths"
        remedy = "Avoid repetitions within repetitions, such as (a+)+; say what a part may not hold, such as [^_/]+."
        problem = Problem("--pattern", found, "a pattern that fits or fails at once", remedy)
        raise ConfigError(f"The pattern does not come to an end on the paths of {where}.", [problem]) from error
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2][:200]
        raise ConfigError(
            "The pattern cannot be used.", [Problem("--pattern", reason, "a pattern", "Make it simpler.")]
        )
    return {path: groups for path, groups in zip(paths, json.loads(done.stdout), strict=True) if groups is not None}


class _Reader:
    """Plates while the matches are read."""

    def __init__(self, tree: Tree, options: ReadOptions, present: set[str]) -> None:
        self._tree = tree
        channels = Channels(options.channels)
        self._plates: dict[str, PlateBuilder] = defaultdict(
            lambda: PlateBuilder(present, channels, options=options, once=_ONCE)
        )
        self._problems: list[Problem] = []

    def take(self, path: str, groups: dict[str, str | None]) -> None:
        """Read one match."""
        plate = groups.get("plate") or self._tree.where.rstrip("/").rpartition("/")[2]
        place = place_of(groups)
        site = number_of(groups.get("site") or "1")
        if place is None or site is None:
            shown = {name: value for name, value in groups.items() if name in {"well", "row", "col", "site"}}
            remedy = "Correct the pattern, or the file's name."
            self._problems.append(Problem(at(self._tree, path), str(shown), "a well and a number", remedy))
            return
        builder = self._plates[plate].named(f"{self._tree.where}, plate {plain(plate)}")
        channel = groups.get("channel") or ""
        plane, time = (number_of(groups.get(name) or "") for name in ("plane", "time"))
        where = at(self._tree, path)
        for name, number in (("plane", plane), ("time", time)):
            if groups.get(name) and number is None:  # taken for no number, different ones would be mixed
                remedy = f"Leave letters out of the group: t(?P<{name}>[0-9]+)."
                self._problems.append(Problem(where, f"{name} {plain(groups[name] or '')!r}", "a number", remedy))
        if not channel or "," in channel:
            names = [name.strip() for name in channel.split(",") if name.strip()]
            self._pages(builder, path, (place, site), names, plane, time)
            return
        stain = builder.stain(channel, told=channel)
        if stain is not None:
            builder.add(place, site, stain, ImageRef(path), where=where, plane=plane, time=time)

    def _pages(
        self, builder: PlateBuilder, path: str, field: tuple[tuple[int, int], int], names: list[str],
        plane: int | None, time: int | None,
    ) -> None:  # fmt: skip
        """Take the pages of a file that holds all channels of a field; its name may say of which plane and time."""
        where = at(self._tree, path)
        try:
            pages = pages_of(self._tree, path, names)
        except NoPagesError as error:
            builder.fault(where, f"a file that {error}", "a page for each channel, or the group channel in --pattern")
            return
        for name, said, own in (("plane", plane, {page.plane for page in pages}),
                                ("time", time, {page.time for page in pages})):  # fmt: skip
            if said is not None and len(own) > 1:
                found = f"{len(own)} of the pages' own, and {said} by its name"
                builder.fault(where, f"{name}s: {found}", f"a pattern without the group {name}")
                return
        for page in pages:
            stain = builder.stain(page.label, str(page.channel), told=page.label or f"channel {page.channel}")
            if stain is not None:
                image = ImageRef(path, page.number) if len(pages) > 1 else ImageRef(path)
                of_plane = page.plane if plane is None else plane
                of_time = page.time if time is None else time
                builder.add(*field, stain, image, where=where, plane=of_plane, time=of_time)

    def plates(self, unmatched: int) -> list[PlateListing]:
        """Return the plates; raises `ContractError` with all problems."""
        raise_if_any(ContractError, f"{self._tree.where} cannot be imported.", few(self._problems, self._tree.where))
        check(self._tree.where, self._plates.values())
        notes = [f"{unmatched} images of the folder do not fit the pattern"] * bool(unmatched)
        return [builder.listing(name, notes) for name, builder in sorted(self._plates.items())]


def place_of(groups: dict[str, str | None]) -> tuple[int, int] | None:
    """Return row and column from 0 of the groups of a match, or None when they are no well."""
    well = groups.get("well")
    if well is not None:
        return parse_well(well)
    row, column = groups.get("row") or "", groups.get("col") or ""
    if re.fullmatch("[A-Za-z]{1,2}", row):
        return parse_well(row + column)
    numbers = (number_of(row), number_of(column))
    return (numbers[0] - 1, numbers[1] - 1) if numbers[0] and numbers[1] else None


def number_of(text: str) -> int | None:
    """Return a whole number, or None when the text is none."""
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else None
