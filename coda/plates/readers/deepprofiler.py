"""DeepProfiler's compressed images: corrected, reduced and 8-bit already, so ingest stores them as they are.

Two forms are in use: a PNG for each channel, listed by an index CSV; and one PNG for each field with its channels side
by side, named ``<plate>/<well>_<site>.png``, of which nothing says what the channels are.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd

from coda.contracts.channels import LEFT_OUT
from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.file_references import FileResolver, Resolved
from coda.plates.layout import parse_well
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.load_data_tree import read_rows
from coda.plates.readers.plate_builder import PlateBuilder, check
from coda.plates.readers.read_options import ReadOptions, at, few, refusal
from coda.plates.tabular.dialect import Dialects
from coda.plates.tabular.typed_numbers import whole_number
from coda.plates.tree import Tree

COLUMNS = ("Metadata_Plate", "Metadata_Well", "Metadata_Site")
INDEXES = ("index.csv", "metadata.csv")
"""Names of an index, at any depth; at the top of the folder any CSV with the columns is one."""

MAX_CHANNELS = 16

_SIDE_BY_SIDE = re.compile(
    r"(?:.*/)?(?P<plate>[^/]+)/(?P<well>[A-Za-z]{1,2}[0-9]{1,2})_s?(?P<site>[0-9]{1,4})\.(?i:png)"
)
_IMAGE = re.compile(r".+\.(?:png|tiff?)", re.IGNORECASE)
_NUMBER = re.compile(r"[1-9][0-9]?")
_ONCE = "one image for each field and channel"


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of a folder of compressed images.

    Args:
        tree: Folder with the images, and with the index where each channel has a file of its own.
        options: Columns of the index -> stain, where they are not the stain's own; or, for images with channels side
            by side, position (from 1) -> stain for all positions ('none' for one to leave out).

    Raises:
        ConfigError: Channels lie side by side and not all positions are given.
        ContractError: There are no such images, or the index has problems.
    """
    paths = [file.path for file in tree.files()]
    images = [path for path in paths if path.lower().endswith(".png")]
    index = _index_of(tree, paths, options.tables)
    if index is not None:
        return _indexed(tree, index, images, options)
    return _side_by_side(tree, images, options)


def _index_of(tree: Tree, paths: Sequence[str], dialects: Dialects) -> tuple[str, pd.DataFrame] | None:
    """Return the one CSV of the tree that has the columns of an index."""
    found = []
    for path in paths:
        name = PurePosixPath(path).name.lower()
        if not name.endswith(".csv") or (name not in INDEXES and "/" in path):
            continue
        try:
            table = read_rows(tree, path, dialects).rows
        except ContractError:
            if name in INDEXES:
                raise
            continue  # somebody's notes
        if set(COLUMNS) <= set(table.columns):
            found.append((path, table))
    if len(found) > 1:
        names = ", ".join(path for path, _ in found)
        raise refusal(tree.where, names, "one index", "Leave exactly one in the folder.")
    return found[0] if found else None


def _indexed(
    tree: Tree, index: tuple[str, pd.DataFrame], images: Sequence[str], options: ReadOptions
) -> list[PlateListing]:
    path, table = index
    where = at(tree, path)
    columns = [name for name in table.columns if name not in COLUMNS and table[name].map(_is_image).any()]
    channels = Channels(options.channels, named_by_people=True)
    stains = {name: channels.stain(name) for name in columns}
    names = sorted(set(table["Metadata_Plate"]))
    resolver, present = FileResolver(images, own=False, others=names, moved=options.moved), set(images)
    there = {path.rpartition("/")[2] for path in images}

    def spelled(reference: str) -> str:
        """Return the name of the compressed image, where the index has that of the raw one."""
        return reference if re.split(r"[/\\\\]", reference)[-1] in there else _compressed(reference)

    resolved = {
        str(name): resolver.learn(
            str(name), {column: [spelled(text) for text in rows[column]] for column in columns if stains[column]}
        )
        for name, rows in table.groupby("Metadata_Plate")
    }
    plates = _builders(present, channels, options)
    problems = []
    for number, values in zip(table.index, table.to_dict("records"), strict=True):
        row = {str(name): str(value) for name, value in values.items()}
        place, site = parse_well(row["Metadata_Well"]), whole_number(row["Metadata_Site"])
        if place is None or site is None or not row["Metadata_Plate"]:
            found = str({name: row[name] for name in COLUMNS})
            problems.append(Problem(f"{where}, line {number}", found, "plate, well and a number", "Correct the row."))
            continue
        plate = plates[row["Metadata_Plate"]]
        for name in columns:
            stain, reference = stains[name], row[name]
            if stain is None:
                if reference:
                    plate.stain(name, told=name)
                continue
            image = _resolved(resolved[row["Metadata_Plate"]], spelled(reference))
            line = f"{where}, line {number}"
            if image is None:
                plate.miss(place, site, reference or f"no file for {stain}", where=line)
            else:
                plate.add(place, site, stain, ImageRef(image), where=line)
    raise_if_any(ContractError, f"{where} cannot be imported.", few(problems, where))
    check(where, plates.values())
    return [plate.listing(name, bit_depth=8) for name, plate in sorted(plates.items())]


def _builders(present: set[str], channels: Channels, options: ReadOptions) -> dict[str, PlateBuilder]:
    return defaultdict(lambda: PlateBuilder(present, channels, options=options, once=_ONCE))


def _is_image(value: str) -> bool:
    return bool(_IMAGE.fullmatch(value[:500]))


def _compressed(reference: str) -> str:
    """Return the name of the compressed image of a raw one: an index names the latter, the former ends in png."""
    return re.sub(r"\.[^./\\]+$", ".png", reference)


def _resolved(resolved: Resolved, reference: str) -> str | None:
    """Return the image that an index means."""
    try:
        return resolved.resolve(reference) if reference else None
    except LookupError:
        return None


def _side_by_side(tree: Tree, images: Sequence[str], options: ReadOptions) -> list[PlateListing]:
    matched = {path: found for path in images if (found := _SIDE_BY_SIDE.fullmatch(path))}
    if not matched:
        expected = f"an index with {', '.join(COLUMNS)}, or files named <plate>/<well>_<site>.png"
        raise refusal(tree.where, "neither of them", expected, "Name the folder of DeepProfiler's output.")
    order = _positions(options)
    plates = _builders(set(images), Channels(options.channels), options)
    for path, found in matched.items():
        place = parse_well(found["well"])
        plate = plates[found["plate"]]
        if place is None:
            plate.fault(at(tree, path), f"the well {found['well']!r}", "a well")
            continue
        for number in range(len(order)):
            stain = plate.stain(str(number + 1), told=f"position {number + 1}")
            if stain is not None:
                image = ImageRef(path, number, len(order))
                plate.add(place, int(found["site"]), stain, image, where=at(tree, path))
    check(tree.where, plates.values())
    note = f"{len(order)} channels side by side: {', '.join(order)}"
    return [plate.listing(name, [note], bit_depth=8) for name, plate in sorted(plates.items())]


def _positions(options: ReadOptions) -> list[str]:
    """Return the stains side by side, from the left."""
    given = {int(name): stain for name, stain in options.channels.items() if _NUMBER.fullmatch(name)}
    count = max(given, default=0)
    absent = [str(number) for number in range(1, count + 1) if number not in given]
    if not given or absent or count > MAX_CHANNELS or len(given) != len(options.channels):
        found = f"nothing for {', '.join(absent)}" if absent else str(dict(options.channels))
        remedy = "Give all positions from the left: --channel 1=DNA --channel 2=ER ... ('none' leaves one out)."
        problem = Problem("--channel", found, f"positions 1 to {count or 5}, each a channel or {LEFT_OUT}", remedy)
        raise ConfigError("Nothing in these images says what their channels are.", [problem])
    return [given[number] for number in range(1, count + 1)]
