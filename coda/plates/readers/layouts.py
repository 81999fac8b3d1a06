"""Layouts: the ways in which real instruments and collections lay out plates, each with its finder."""

from collections.abc import Callable, Mapping
from typing import Literal

from coda.errors import ConfigError, ContractError, Problem
from coda.plates.readers import (
    deepprofiler,
    imagexpress,
    jump,
    load_data_tree,
    ome_tiff,
    ome_zarr,
    pattern,
    phenix,
    rxrx1,
    yokogawa,
)
from coda.plates.readers.deduplicate import each_image_once
from coda.plates.readers.listing import PlateListing
from coda.plates.readers.own_index import completed
from coda.plates.readers.plate_naming import named
from coda.plates.readers.read_options import ReadOptions, links_told
from coda.plates.tree import Tree, TreeFile

__all__ = ["LAYOUTS", "PREPARED", "Layout", "ReadOptions", "detect", "find_plates"]

Layout = Callable[[Tree, ReadOptions], list[PlateListing]]

LAYOUTS: Mapping[str, Layout] = {
    "phenix": phenix.find_plates,
    "yokogawa": yokogawa.find_plates,
    "imagexpress": imagexpress.find_plates,
    "pattern": pattern.find_plates,
    "load_data": load_data_tree.find_plates,
    "jump": jump.find_plates,
    "rxrx1": rxrx1.find_plates,
    "deepprofiler": deepprofiler.find_plates,
    "ome-tiff": ome_tiff.find_plates,
    "ome-zarr": ome_zarr.find_plates,
}
"""Name of a layout -> its finder; paths in what it returns are relative to the tree."""

SIGNS: Mapping[str, tuple[str, Callable[[Tree], bool]]] = {
    "jump": ("workspace/load_data_csv beside images", jump.recognised),
    "load_data": ("a table named *load_data* (csv, csv.gz, parquet)", load_data_tree.recognised),
    "phenix": ("Index.idx.xml, Index.xml or Index.ref.xml", phenix.recognised),
    "yokogawa": ("MeasurementData.mlf", yokogawa.recognised),
    "imagexpress": ("an HTD file, or names with GUIDs", imagexpress.recognised),
    "ome-zarr": ("zarr.json, .zattrs or *.zarr.zip", ome_zarr.recognised),
    "ome-tiff": ("files that end in .ome.tif", ome_tiff.recognised),
    "rxrx1": ("folders Plate1, ... with B02_s1_w1.png", rxrx1.recognised),
}
"""Layouts that can be told from the names of files -> by what, and how; the surest first.

A table says more than an instrument's index does (somebody decided there which channel is which stain), so it comes
before it.
"""

INSTRUMENTS = ("phenix", "yokogawa", "imagexpress")
"""Layouts whose indexes say what a table beside them mostly does not: plate format, pixel size, modality."""

PREPARED: Mapping[str, Literal["raw", "deepprofiler"]] = {"deepprofiler": "deepprofiler"}
"""Layout -> what was done to its images already; the others' are raw."""


def find_plates(layout: str, tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of a tree.

    Raises:
        ConfigError: There is no such layout, or no such plate as `options` asks for.
        ContractError: The tree has problems; all of them together.
        TransientError: The storage is away.
    """
    if layout not in LAYOUTS:
        problem = Problem("layout", repr(layout), f"one of {', '.join(LAYOUTS)}", "Correct the name.")
        raise ConfigError("There is no such layout.", [problem])
    try:
        plates = LAYOUTS[layout](tree, options)
        if layout == "load_data":
            seen = _Listed(tree)
            signs = {name: LAYOUTS[name] for name in INSTRUMENTS if SIGNS[name][1](seen)}
            plates = completed(tree, plates, options, signs)
        return named(tree.where, each_image_once(plates), options)
    except ContractError as error:
        told = [Problem(tree.where, said, "files, or links that stay inside", "Copy it.") for said in links_told(tree)]
        if not told:
            raise
        raise ContractError(error.message, [*error.problems, *told]) from error


def detect(tree: Tree) -> str:
    """Return the name of the layout of a tree, by the names of its files.

    Raises:
        ContractError: It is none of those that can be told by names; with what was looked for.
        TransientError: The storage is away.
    """
    seen = _Listed(tree)
    for name, (_, recognised) in SIGNS.items():
        if recognised(seen):
            return name
    looked = "; ".join(f"{text} ({name})" for name, (text, _) in SIGNS.items())
    remedy = f"Name the layout ({', '.join(LAYOUTS)}), or the folder that holds the plates."
    raise ContractError(
        f"{tree.where} has no layout that its files identify.",
        [Problem(tree.where, "none of them", looked, remedy)],
    )


class _Listed:
    """A tree whose list of files is kept, so that several questions list it once; a folder alone is listed alone."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files: list[TreeFile] | None = None
        self.where = tree.where

    def files(self, under: str = "") -> list[TreeFile]:
        if self._files is None and under.strip("/"):
            return self._tree.files(under)
        if self._files is None:
            self._files = self._tree.files()
        folder = f"{under.strip('/')}/" if under.strip("/") else ""
        return [file for file in self._files if file.path.startswith(folder)]

    def read(self, path: str, *, at_most: int) -> bytes:
        return self._tree.read(path, at_most=at_most)
