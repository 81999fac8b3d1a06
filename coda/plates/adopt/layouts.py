"""Layouts: the ways in which real instruments and collections lay out plates, each with its finder."""

from collections import Counter
from collections.abc import Callable, Mapping

from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.adopt import listed, phenix, rxrx1
from coda.plates.adopt.finding import Finding
from coda.plates.adopt.found import FoundPlate
from coda.plates.tree import Tree

__all__ = ["LAYOUTS", "Finding", "Layout", "detect", "find_plates"]

Layout = Callable[[Tree, Finding], list[FoundPlate]]

LAYOUTS: Mapping[str, Layout] = {
    "phenix": phenix.find_plates,
    "load_data": listed.find_plates,
    "rxrx1": rxrx1.find_plates,
}
"""Name of a layout -> its finder; paths in what it returns are relative to the tree."""

SIGNS: Mapping[str, Callable[[Tree], bool]] = {
    "phenix": phenix.recognised,
    "load_data": listed.recognised,
    "rxrx1": rxrx1.recognised,
}
"""Layouts that can be told from the names of files, the surest first."""

LOOKED_FOR: Mapping[str, str] = {
    "phenix": "Index.idx.xml or Index.xml",
    "load_data": "a table named *load_data* (csv, csv.gz, parquet)",
    "rxrx1": "folders Plate1, ... with B02_s1_w1.png",
}


def find_plates(layout: str, tree: Tree, finding: Finding) -> list[FoundPlate]:
    """Return the plates of a tree.

    Args:
        layout: A name of `LAYOUTS`.
        tree: Local folder or object storage.
        finding: What the user says about the tree.

    Raises:
        ConfigError: There is no such layout, or no such plate as `finding` asks for.
        ContractError: The tree has problems; all of them together.
        TransientError: The storage is away.
    """
    if layout not in LAYOUTS:
        problem = Problem("layout", repr(layout), f"one of {', '.join(LAYOUTS)}", "Correct the name.")
        raise ConfigError("There is no such layout.", [problem])
    plates = LAYOUTS[layout](tree, finding)
    names = Counter(plate.plate for plate in plates)
    remedy = "Adopt the folder of one measurement alone, or give the plates other names."
    problems = [
        Problem(tree.where, f"{times} plates of the name {name}", "each plate once", remedy)
        for name, times in sorted(names.items())
        if times > 1 and finding.takes(name)
    ]
    raise_if_any(ContractError, f"{tree.where} cannot be adopted.", problems)
    unknown = sorted(finding.plates - set(names))
    if unknown:
        known = ", ".join(sorted(names)[:20])
        problem = Problem("plates", ", ".join(unknown), f"plates among {known}", "Correct the name.")
        raise ConfigError(f"{tree.where} has no such plate.", [problem])
    return [plate for plate in plates if finding.takes(plate.plate)]


def detect(tree: Tree) -> str:
    """Return the name of the layout of a tree, by the names of its files.

    Raises:
        ContractError: It is none of those that can be told by names; with what was looked for.
        TransientError: The storage is away.
    """
    for name, recognised in SIGNS.items():
        if recognised(tree):
            return name
    looked = "; ".join(f"{text} ({name})" for name, text in LOOKED_FOR.items())
    problem = Problem(tree.where, "none of them", looked, "Name the layout, or the folder that holds the plates.")
    raise ContractError(f"{tree.where} has no layout that can be told by its files.", [problem])
