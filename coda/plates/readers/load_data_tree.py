"""A tree with load_data tables beside (or above) its images, of either generation."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pandas as pd

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.file_references import FileResolver
from coda.plates.layout import parse_well
from coda.plates.load_data import FieldRow, read_fields, stains_of
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.illum import illumination_of
from coda.plates.readers.listing import FieldListing, ImageRef, PlateListing, safe_name
from coda.plates.readers.read_options import ReadOptions, at, plain, refusal
from coda.plates.tabular.dialect import Dialects, UnreadableTableError
from coda.plates.tabular.encoding import MAX_TABLE_BYTES
from coda.plates.tabular.table import Table, read
from coda.plates.tabular.typed_numbers import read_numbers
from coda.plates.tree import Tree

ENDINGS = (".csv", ".csv.gz", ".parquet")
"""Kinds of tables; where a folder holds the same table in several of them, the first kind is read."""

IMAGES = (".tif", ".tiff", ".png")


def is_table(path: str) -> bool:
    """Return whether a path is that of a load_data table, by its name."""
    name = PurePosixPath(path).name
    return "load_data" in name.lower() and name.lower().endswith(ENDINGS)


def recognised(tree: Tree) -> bool:
    """Return whether the tree holds a load_data table."""
    return any(is_table(file.path) for file in tree.files())


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates that the tree's load_data tables (`*load_data*.csv`, `.csv.gz`, `.parquet`) name.

    Args:
        tree: Folder with the tables, and the images at any depth below it.
        options: Names after `Orig` in the table's columns -> names in the delivery, for those that are to change.

    Raises:
        ContractError: There is no table, a folder has several, or they have problems; all of them together.
    """
    paths = [file.path for file in tree.files()]
    tables = pick_tables(tree, [path for path in paths if is_table(path)])
    rows, unread = read_all(tree, tables, options)
    names = {path: plates_named(tree, path, table) for path, table in rows.items()}
    found: list[PlateListing] = []
    problems: list[Problem] = []
    for path, table in rows.items():
        files = TreeFiles.among(paths, options, names, path)
        plates, faults = plates_of_table(tree, path, table, files, options)
        found += plates
        problems += faults
    problems += repeated(tree, [plate.plate for plate in found])
    raise_if_any(ContractError, f"{tree.where} cannot be imported.", problems)
    return [replace(plate, notes=(*plate.notes, *unread)) for plate in found]


def pick_tables(tree: Tree, paths: Sequence[str]) -> list[str]:
    """Return one table of each folder: that with the illumination functions, in the first of the kinds it comes in.

    Raises:
        ContractError: There is no table, or a folder holds several that are not the same one.
    """
    if not paths:
        remedy = "Write one: a row for each field with Metadata_Plate, Metadata_Well, Metadata_Site and, for each "
        remedy += "stain, FileName_Orig<Stain> (docs/data_contracts.md)."
        found = f"no such table ({', '.join(ENDINGS)})"
        raise refusal(tree.where, found, "a table named *load_data*", remedy)
    folders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        folder, _, name = path.rpartition("/")
        stem = next(name[: -len(ending)] for ending in reversed(ENDINGS) if name.lower().endswith(ending))
        folders[folder][stem].append(path)
    chosen, problems = [], []
    for folder, stems in sorted(folders.items()):
        illuminated = {f"{stem}_with_illum" for stem in stems} & set(stems)
        plain = {stem for stem in stems if f"{stem}_with_illum" not in illuminated}
        if len(plain) > 1 and not all(_names_a_plate(stem) for stem in plain):
            found = ", ".join(sorted(path.rpartition("/")[2] for stem in plain for path in stems[stem]))
            remedy = "Leave exactly one in the folder."
            problems.append(Problem(at(tree, folder), found, "one table named *load_data* in a folder", remedy))
        chosen += [min(stems[stem], key=_kind) for stem in sorted(plain)]
    raise_if_any(ContractError, f"{tree.where} cannot be imported.", problems)
    return chosen


def _names_a_plate(stem: str) -> bool:
    """Return whether a table's name has more than the usual parts, as `BR00117010_load_data` has."""
    return bool(stem.replace("load_data", "").replace("with_illum", "").strip("_-."))


def _kind(path: str) -> int:
    return next(number for number, ending in enumerate(ENDINGS) if path.lower().endswith(ending))


@dataclass(frozen=True)
class TreeFiles:
    """Files of a tree that tables may mean: images, and arrays with illumination functions."""

    images: FileResolver
    arrays: FileResolver

    @classmethod
    def among(
        cls, paths: Collection[str], options: ReadOptions, tables: Mapping[str, Collection[str]], table: str
    ) -> "TreeFiles":
        """Sort the paths of a tree by what their ending says.

        Args:
            paths: Paths of the tree.
            options: Moves that the user named.
            tables: Every table of the tree -> the plates it is about.
            table: The table whose rows are to be resolved.
        """
        home = table.rpartition("/")[0]
        below = {plate for path, plates in tables.items() if path.startswith(f"{home}/") for plate in plates}
        others = frozenset(plate for plates in tables.values() for plate in plates)

        def files(*endings: str) -> FileResolver:
            some = (path for path in paths if path.lower().endswith(endings))
            return FileResolver(
                some, own=False, others=others, home=home if len(below) == 1 else "", moved=options.moved
            )

        return cls(files(*IMAGES), files(".npy"))


def plates_named(tree: Tree, path: str, table: pd.DataFrame) -> frozenset[str]:
    """Return the plates that a table is about; one without the column is about the plate its folder is called after."""
    if "Metadata_Plate" not in table.columns:
        return frozenset({at(tree, path).rpartition("/")[0].rpartition("/")[2]})
    return frozenset(table["Metadata_Plate"])


def read_all(tree: Tree, paths: Sequence[str], options: ReadOptions) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Return the rows of tables; and remarks on how they are written, or on unreadable ones that are not needed.

    Raises:
        ContractError: Tables cannot be read, and all plates are wanted or a wanted one is in no other table; all of
            them together.
    """
    rows: dict[str, pd.DataFrame] = {}
    problems: list[Problem] = []
    told: list[str] = []
    for path in paths:
        try:
            table = read_rows(tree, path, options.tables)
            rows[path] = table.rows
            told += [table.told(plain(path))] if table.notes else []
        except ContractError as error:
            problems += error.problems
    known = {str(name) for table in rows.values() if "Metadata_Plate" in table for name in table["Metadata_Plate"]}
    known |= {at(tree, path).split("/")[-2] for path, table in rows.items() if "Metadata_Plate" not in table}
    known = {called for name in known for called in _names_of(name, options)}
    if problems and options.plates and options.plates <= known:
        return rows, tuple(
            f"another plate's table was not read: {problem.where} {problem.found}" for problem in problems
        )
    if problems and rows and not options.plates:
        remedy = "Or take the plates of the other tables alone (--only-plate)."
        problems = [replace(problem, remedy=f"{problem.remedy} {remedy}") for problem in problems]
    raise_if_any(ContractError, f"{tree.where} cannot be imported.", problems)
    return rows, tuple(told)


def _names_of(plate: str, options: ReadOptions) -> set[str]:
    """Return the names by which a user may mean a plate of a table: its own, the safe one, the new one."""
    return {plate, safe_name(plate), options.renames.get(plate, plate)}


def read_rows(tree: Tree, path: str, dialects: Dialects) -> Table:
    """Return a table of a tree as text.

    Raises:
        ContractError: It is no table, or too large for one.
    """
    try:
        return read(tree.read(path, at_most=MAX_TABLE_BYTES), dialects.of(path))
    except UnreadableTableError as error:
        remedy = error.remedy or "Write load_data again."
        raise refusal(at(tree, path), f"a table that {error}", "a load_data table", remedy) from error


def plates_of_table(
    tree: Tree, path: str, table: pd.DataFrame, files: TreeFiles, options: ReadOptions
) -> tuple[list[PlateListing], list[Problem]]:
    """Find the images of one load_data table.

    Returns:
        The plates it is about; and all problems of the table.
    """
    where = at(tree, path)
    if "Metadata_Plate" not in table.columns:
        (plate_name,) = plates_named(tree, path, table)
        table = table.assign(Metadata_Plate=plate_name)
    channels = Channels(options.channels, named_by_people=True)
    table, left_out, problems = _with_stains(table, channels, where)
    if problems:
        return [], problems
    declared = stains_of(list(table.columns))
    found = []
    for name, rows in table.groupby("Metadata_Plate", sort=True):
        fields, faults = read_fields(
            rows, where=where, plate=str(name), declared=declared, wells=1536, resolver=files.images
        )
        if not options.plates or _names_of(str(name), options) & options.plates:
            problems += faults  # what is wrong with another plate does not matter
        plate = _plate(str(name), fields, left_out=left_out, settings=_settings(rows))
        given, notes = illumination_of(rows, str(name), declared, files.arrays)
        found.append(
            replace(
                plate,
                channels=tuple(channels.seen),
                illumination=given,
                notes=(*plate.notes, *channels.remarks.values(), *notes),
            )
        )
    return found, problems


def repeated(tree: Tree, names: Sequence[str]) -> list[Problem]:
    """Return a problem for each plate that more than one table is about."""
    remedy = "Leave one table for each plate."
    return [
        Problem(tree.where, f"{times} tables with plate {name}", "one table for each plate", remedy)
        for name, times in sorted(Counter(names).items())
        if times > 1
    ]


def _with_stains(
    table: pd.DataFrame, channels: Channels, where: str
) -> tuple[pd.DataFrame, dict[str, int], list[Problem]]:
    """Rename the columns of mapped channels, and drop those of channels that are left out."""
    kept: dict[str, str] = {}
    left_out: dict[str, int] = {}
    present = stains_of(list(table.columns))
    for column in table.columns:
        prefix, kind, channel = _split(str(column))
        if not kind:
            kept[column] = column
        elif channels.stain(channel) is not None:
            kept[column] = f"{prefix}_{kind}{channels.stain(channel)}"
        elif channel in present and kind == "Orig":
            left_out[plain(channel)] = len(table)
    twice = sorted(name for name, times in Counter(kept.values()).items() if times > 1)
    remedy = "Map one channel to each name (--channel NAME=CHANNEL)."
    problems = [
        Problem(where, f"several columns that would be {name}", "one channel for each stain", remedy) for name in twice
    ]
    return table[list(kept)].rename(columns=kept), left_out, problems


def _split(column: str) -> tuple[str, str, str]:
    """Return ('URL', 'Orig', 'DNA') of 'URL_OrigDNA'; empty texts of a column that names no file."""
    for prefix in ("FileName", "PathName", "URL"):
        for kind in ("Orig", "Illum"):
            if column.startswith(f"{prefix}_{kind}"):
                return prefix, kind, column.removeprefix(f"{prefix}_{kind}")
    return "", "", ""


@dataclass(frozen=True)
class _Settings:
    """What the instrument's export wrote beside the file names; None or empty where it did not."""

    pixel_size_um: float | None
    bit_depth: int | None
    objective: str


def _settings(rows: pd.DataFrame) -> _Settings:
    """Read the columns that an export of Harmony (Opera Phenix, Operetta) adds: metres a pixel, largest value, lens."""
    metres = _number(rows, "Metadata_ImageResolutionX")
    largest = _number(rows, "Metadata_MaxIntensity")
    lens = [_number(rows, f"Metadata_{name}") for name in ("ObjectiveMagnification", "ObjectiveNA")]
    return _Settings(
        pixel_size_um=metres * 1e6 if metres is not None and 1e-8 < metres < 2e-5 else None,
        bit_depth=(int(largest) - 1).bit_length() if largest is not None and 256 <= largest <= 65536 else None,
        objective=f"{lens[0]:g}x/{lens[1]:g}" if lens[0] is not None and lens[1] is not None else "",
    )


def _number(rows: pd.DataFrame, column: str) -> float | None:
    """Return the one number that a column holds in all rows; None when it is absent or they differ."""
    values = set(rows[column]) if column in rows else set()
    numbers, faults = read_numbers([(0, values.pop())]) if len(values) == 1 else ({}, [])
    return float(numbers[0]) if numbers and not faults else None


def _plate(name: str, rows: Sequence[FieldRow], *, left_out: dict[str, int], settings: _Settings) -> PlateListing:
    fields = []
    missing: list[str] = []
    for row in rows:
        missing += [reason for reason in row.missing.values() if reason.startswith("the file")]
        place = parse_well(row.well)
        if place is not None:
            fields.append(FieldListing(place, row.site, {stain: ImageRef(path) for stain, path in row.files.items()}))
    notes = (f"{len(missing)} image(s) of the table were not found, the first: {missing[0]}",) if missing else ()
    return PlateListing(
        plate=name,
        fields=tuple(fields),
        pixel_size_um=settings.pixel_size_um,
        bit_depth=settings.bit_depth,
        objective=settings.objective,
        left_out=left_out,
        notes=notes,
    )
