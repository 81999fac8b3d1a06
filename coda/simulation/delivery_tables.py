"""The two tables of a delivered plate: load_data (which file is which stain) and the plate map (what is in a well)."""

import csv
import io

from coda.contracts import STAINS
from coda.simulation.design import Experiment, WellPlan
from coda.simulation.laboratories import Laboratory
from coda.simulation.microscope_names import image_folder, image_names

PLATE_MAP_COLUMNS = (
    "Metadata_Plate", "Metadata_Well", "Metadata_Compound", "Metadata_Treatment", "Metadata_pert_type",
    "Metadata_Dose_uM",
)  # fmt: skip


def load_data_table(laboratory: Laboratory, batch: str, plate: str, experiment: Experiment) -> str:
    """Return load_data as CSV: a row for each field, in well order, paths relative to the batch folder.

    As in JUMP's tables, ``FileName_Orig<Stain>`` holds the name and ``PathName_Orig<Stain>`` the folder with a final
    slash.
    """
    metadata = ["Metadata_Source", "Metadata_Batch", "Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    files = [f"{kind}_Orig{stain}" for stain in STAINS for kind in ("FileName", "PathName")]
    folder = image_folder(laboratory, plate) + "/"
    rows: list[list[str]] = []
    for plan in experiment.imaged_wells():
        for site in range(1, experiment.design.sites_per_well + 1):
            names = image_names(laboratory, plate, plan, site)
            place = [laboratory.name, batch, plate, plan.well, str(site)]
            rows.append(place + [value for stain in STAINS for value in (names[stain], folder)])
    return as_csv(metadata + files, rows)


def plate_map_table(plate: str, experiment: Experiment) -> str:
    """Return the plate map as CSV: a row for every well; empty wells have no compound, treatment or dose."""
    return as_csv(list(PLATE_MAP_COLUMNS), [_plate_map_row(plate, plan) for plan in experiment.layout])


def as_csv(header: list[str], rows: list[list[str]]) -> str:
    """Return rows as CSV text with a header and plain line ends."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _plate_map_row(plate: str, plan: WellPlan) -> list[str]:
    dose = "" if plan.dose_um is None else f"{plan.dose_um:g}"
    return [plate, plan.well, plan.compound, plan.treatment, plan.pert_type, dose]
