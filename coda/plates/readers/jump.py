"""A source of the public Cell Painting gallery, as JUMP-CP lies there: images, illumination functions and load_data.

The tree is the source's prefix (``.../cpg0016-jump/source_4``) or a copy of it. Only the tables and the folders of the
wanted plates are listed. A plate's folder of images has another name than the plate; the tables say which it is.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from coda.contracts.channels import in_order
from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.addresses import spellings
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.family import gather_names
from coda.plates.readers.image_names import GalleryKey, parse_image, parse_key
from coda.plates.readers.listing import PlateListing
from coda.plates.readers.load_data_tree import (
    ENDINGS,
    TreeFiles,
    is_table,
    plates_named,
    plates_of_table,
    read_all,
    repeated,
)
from coda.plates.readers.plate_builder import check
from coda.plates.readers.read_options import ReadOptions, refusal
from coda.plates.tree import Tree

TABLES = "workspace/load_data_csv"
TABLE_STEMS = ("load_data_with_illum", "load_data")
"""Names of a plate's table without the ending, the better first; other tables of the folder are not read."""


def recognised(tree: Tree) -> bool:
    """Return whether the tree is one source of the gallery; it may hold millions of images, which are not listed."""
    return any(is_table(file.path) for file in tree.files(TABLES))


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of one batch of a source.

    Args:
        tree: The source's prefix.
        options: The batch (may be left out when there is one only), the plates, and channels: names after `Orig` in
            the tables, or numbers in file names for plates without a table.

    Raises:
        ContractError: The batch is not there or must be named, tables have problems, or plates have neither a table
            nor known channels; all of them together.
        TransientError: The storage is away.
    """
    tables = [file.path for file in tree.files(TABLES if options.batch is None else f"{TABLES}/{options.batch}")]
    batch = options.batch or _only_batch(tree, tables)
    return _Batch(tree, batch, tables, options).plates()


def _only_batch(tree: Tree, tables: Sequence[str]) -> str:
    batches = sorted({parts[2] for parts in (path.split("/") for path in tables) if len(parts) > 3})
    if len(batches) != 1:
        found = f"the batches {', '.join(batches[:30])}" if batches else f"no table below {TABLES}"
        raise refusal(
            tree.where,
            found,
            "one batch of a source",
            "Name the batch (--jump-batch), or take all (coda manifest build --all-batches).",
        )
    return batches[0]


def _key(path: str) -> GalleryKey | None:
    """Return the parts of a path of the tree; a copy of a source need not carry the source's name."""
    return parse_key(f"source_0/{path}") if "/" in path else None


class _Batch:
    """One batch while it is read."""

    def __init__(self, tree: Tree, batch: str, tables: Sequence[str], options: ReadOptions) -> None:
        self._tree = tree
        self._batch = batch
        self._options = options
        self._images = f"images/{batch}/images"
        self._tables = _chosen_tables(tables, batch, options)
        self._listed: dict[str, list[str]] = {}

    def plates(self) -> list[PlateListing]:
        """Return all plates that are wanted; raises `ContractError` with all problems."""
        found: list[PlateListing] = []
        problems: list[Problem] = []
        rows, unread = read_all(self._tree, self._tables, self._options)
        folders = {path: _folders(table) for path, table in rows.items()}
        names = {path: plates_named(self._tree, path, table) for path, table in rows.items()}
        wants_all = not self._options.plates
        if wants_all or any(not names for names in folders.values()):
            self._list_all()
        for path in rows:
            files = TreeFiles.among(self._paths(rows[path], folders[path]), self._options, names, path)
            plates, faults = plates_of_table(self._tree, path, rows[path], files, self._options)
            found += plates
            problems += faults
        problems += repeated(self._tree, [plate.plate for plate in found])
        raise_if_any(ContractError, f"{self._tree.where} cannot be imported.", problems)
        used = {folder for names in folders.values() for folder in names}
        without = self._without_table({plate.plate for plate in found}, used)
        if not found and not without:
            remedy = "Check the names of batch and plates (--jump-batch, --only-plate)."
            expected = f"tables below {TABLES}/{self._batch}, or images below {self._images}"
            raise refusal(self._tree.where, "neither", expected, remedy)
        found = [replace(plate, notes=(*plate.notes, *unread)) for plate in found]
        return found + self._read_names(without, found)

    def _list_all(self) -> None:
        for file in self._tree.files(self._images):
            parts = file.path.split("/")
            if len(parts) > 4:
                self._listed.setdefault(parts[3], []).append(file.path)

    def _folder(self, name: str) -> list[str]:
        if name not in self._listed:
            self._listed[name] = [file.path for file in self._tree.files(f"{self._images}/{name}")]
        return self._listed[name]

    def _paths(self, table: pd.DataFrame, folders: Iterable[str]) -> list[str]:
        """Return the files that a table may mean: its folders of images, and those of its illumination functions."""
        names = set(folders)
        paths = [path for name in sorted(names or set(self._listed)) for path in self._folder(name)]
        for plate in sorted(set(table["Metadata_Plate"]) if "Metadata_Plate" in table else set()):
            paths += self._illum(plate)
        return paths

    def _illum(self, plate: str) -> list[str]:
        if not plate or "/" in plate or plate in {".", ".."}:
            return []
        return [file.path for file in self._tree.files(f"images/{self._batch}/illum/{plate}")]

    def _without_table(self, known: set[str], used: set[str]) -> dict[str, str]:
        """Return plate -> folder of images, for wanted plates that no table is about."""
        missing = self._options.plates - known
        if self._options.plates and not missing:
            return {}
        if self._options.plates:
            self._list_all()
        found: dict[str, str] = {}
        twice = []
        for folder in sorted(set(self._listed) - used):
            name = folder.partition("__")[0]
            wanted = next((plate for plate in sorted(missing) if _is_plate(name, plate)), None)
            if self._options.plates and wanted is None:
                continue
            plate = wanted or name
            if any(_is_plate(name, other) for other in known):
                continue  # another measurement of a plate whose table names the one that counts
            if plate in found:
                remedy = "Copy the measurement that counts, and import the copy."
                what = f"the folders {found[plate]} and {folder}"
                twice.append(Problem(f"{self._tree.where}, plate {plate}", what, "one folder, or a table", remedy))
            found[plate] = folder
        raise_if_any(ContractError, f"{self._tree.where} cannot be imported.", twice)
        return found

    def _read_names(self, folders: dict[str, str], others: Sequence[PlateListing]) -> list[PlateListing]:
        """Read plates without a table by the names of their files.

        What a channel number means is what the user says, else what it means in every table of the same batch.
        """
        if not folders:
            return []
        learned = _numbers(others)
        said = ", ".join(f"{number} {stain}" for number, stain in sorted(learned.items()))
        plates, gatherings = [], []
        for plate, folder in folders.items():
            channels = Channels(self._options.channels, learned)
            builder = gather_names(self._folder(folder), channels, self._options)
            gatherings.append(builder)
            note = "no load_data; its images were read by their names"
            note += f", with channels as in the batch's other tables ({said})" if learned else ""
            found = builder.listing(plate, [note])
            given = {key.stain: path for path in self._illum(plate) if (key := _key(path)) is not None}
            imaged = in_order(name for item in found.fields for name in item.files)
            plates.append(replace(found, illumination={name: given[name] for name in imaged if name in given}))
        check(self._tree.where, gatherings)
        return plates


def _is_plate(name: str, plate: str) -> bool:
    """Return whether a folder's name, without date, means a plate; a laboratory may put something before it."""
    return name == plate or name.endswith(f"_{plate}")


def _chosen_tables(paths: Sequence[str], batch: str, options: ReadOptions) -> list[str]:
    """Return one table of each wanted plate: with illumination functions if there is such, in the first kind it has."""
    plates: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parts = path.split("/")
        if len(parts) == 5 and parts[2] == batch and options.takes(parts[3]):
            plates[parts[3]].append(path)
    order = [stem + ending for stem in TABLE_STEMS for ending in ENDINGS]
    chosen = []
    for _, some in sorted(plates.items()):
        usable = [path for path in some if PurePosixPath(path).name in order]
        if usable:
            chosen.append(min(usable, key=lambda path: order.index(PurePosixPath(path).name)))
    return chosen


def _folders(table: pd.DataFrame) -> set[str]:
    """Return the folders of images that a table names: what follows the last part `images` of its paths."""
    found = set()
    for column in table.columns:
        if column.startswith(("PathName_Orig", "URL_Orig")):
            for reference in set(table[column]):
                for parts in spellings(reference).values():
                    places = [number for number, part in enumerate(parts[:-1]) if part == "images"]
                    folder = parts[places[-1] + 1] if places and places[-1] + 2 < len(parts) else ""
                    if folder not in {"", ".."}:
                        found.add(folder)
    return found


def _numbers(plates: Sequence[PlateListing]) -> dict[str, str]:
    """Return channel number -> stain, where all file names of all these plates agree on it."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for plate in plates:
        for item in plate.fields:
            for stain, image in item.files.items():
                name = parse_image(image.path.rpartition("/")[2])
                if name is not None:
                    seen[str(name.channel)][stain] += 1
    certain = {number: next(iter(stains)) for number, stains in seen.items() if len(stains) == 1}
    return certain if len(certain) == len(set(certain.values())) == len(seen) else {}
