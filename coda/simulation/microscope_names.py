"""File names as the laboratories' microscopes write them: three families with their own channel numbers."""

import hashlib

from coda.contracts import STAINS
from coda.simulation.design import WellPlan
from coda.simulation.laboratories import STAIN_INDEX, Laboratory


def image_folder(laboratory: Laboratory, plate: str) -> str:
    """Return the folder of a plate's images below the batch, with forward slashes."""
    return f"images/{plate}/Images" if laboratory.file_names == "phenix" else f"images/{plate}"


def image_name(laboratory: Laboratory, plate: str, plan: WellPlan, site: int, stain: str) -> str:
    """Return the file name of one stain of one field.

    Phenix: row, column, field, plane and channel. CellVoyager: plate, well, time, field, line, action, plane and
    channel. ImageXpress: well, site, channel digit and an identifier with no separator between the two.

    Args:
        laboratory: Decides the family and the channel numbers.
        plate: Name of the plate.
        plan: The well.
        site: Number of the field, from 1.
        stain: Name of the stain.
    """
    number = laboratory.channel_numbers[STAIN_INDEX[stain]]
    if laboratory.file_names == "phenix":
        return f"r{plan.row + 1:02d}c{plan.column + 1:02d}f{site:02d}p01-ch{number}sk1fk1fl1.tiff"
    if laboratory.file_names == "cellvoyager":
        return f"{plate}_{plan.well}_T0001F{site:03d}L01A{number:02d}Z01C{number:02d}.tif"
    token = hashlib.sha256(f"{plate}/{plan.well}/{site}/{stain}".encode()).hexdigest().upper()
    identifier = "-".join((token[:8], token[8:12], token[12:16], token[16:20], token[20:32]))
    return f"HTS_{plan.well}_s{site}_w{number}{identifier}.tif"


def image_names(laboratory: Laboratory, plate: str, plan: WellPlan, site: int) -> dict[str, str]:
    """Return stain -> file name of one field."""
    return {stain: image_name(laboratory, plate, plan, site, stain) for stain in STAINS}
