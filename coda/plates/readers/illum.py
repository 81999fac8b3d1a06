"""Illumination functions that a load_data table names: `FileName_Illum<Stain>` or `URL_Illum<Stain>`."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd

from coda.plates.file_references import FileResolver


def illumination_of(
    rows: pd.DataFrame, plate: str, stains: Sequence[str], arrays: FileResolver
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the illumination functions of one plate.

    Returns:
        Stain -> path of its npy file; and remarks on those that are absent, change within the plate, or carry another
        plate's name (which happens in public data and is left as it is).
    """
    given: dict[str, str] = {}
    notes = []
    named = {stain: _references(rows, stain) for stain in stains}
    resolved = arrays.learn(plate, named)
    for stain, names in named.items():
        if not names:
            continue
        if len(names) > 1:
            notes.append(f"the table names {len(names)} illumination functions of {stain}; none of them is taken")
            continue
        try:
            path = resolved.resolve(names[0])
        except LookupError as error:
            notes.append(f"the illumination function of {stain} was not found: {error.args[0]}")
            continue
        given[stain] = path
        name = PurePosixPath(path).name
        owner = name.partition("Illum")[0].strip("_-.")
        if owner and plate not in owner:
            notes.append(f"the illumination function of {stain} carries another name: {name}")
    return given, tuple(notes)


def _references(rows: pd.DataFrame, stain: str) -> list[str]:
    name, folder, address = (f"{kind}_Illum{stain}" for kind in ("FileName", "PathName", "URL"))
    if name in rows:
        folders = rows[folder].str.rstrip("/") + "/" if folder in rows else ""
        found = (folders + rows[name]).where(rows[name] != "", "")
    elif address in rows:
        found = rows[address]
    else:
        return []
    return sorted(set(found) - {""})
