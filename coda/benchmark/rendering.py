"""Simulated plates rendered straight to the 8-bit fields that ingest would store: no TIFF, no store, same pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.benchmark.simulation_plan import SimulationPlan, SourcePlan, imaged_wells
from coda.contracts import STAINS
from coda.contracts.fields import METADATA_COLUMNS
from coda.plates.compress import compress_field
from coda.plates.illumination import PlateSums, estimate
from coda.plates.index import index_table
from coda.plates.resample import scaled_shape
from coda.plates.stored import crop_centre
from coda.plates.workers import Workers
from coda.simulation.design import Experiment, WellPlan
from coda.simulation.field import render_field

Progress = Callable[[int, int], None]
"""Called with the plates done so far and all plates."""


@dataclass(frozen=True)
class PlateTask:
    """All a process needs to render one plate."""

    experiment: Experiment
    plan: SimulationPlan
    source: SourcePlan
    batch: str
    plate: str


def render(
    experiment: Experiment, plan: SimulationPlan, *, processes: int, progress: Progress | None = None
) -> tuple[NDArray[np.uint8], pd.DataFrame]:
    """Render every plate of a plan.

    Args:
        experiment: Compounds, layout and seed.
        plan: Sources and processing.
        processes: Plates rendered at the same time; the result does not depend on it.
        progress: Called after each plate.

    Returns:
        Images, uint8 (fields, channels, centre, centre), and the field index: ``image_id`` and `Metadata_*` columns.
    """
    tasks = [
        PlateTask(experiment, plan, source, batch, plate)
        for source in plan.sources
        for batch in source.batch_names()
        for plate in source.plate_names(batch)
    ]
    images, tables = [], []
    with Workers(min(processes, len(tasks))) as workers:
        for done, (pixels, rows) in enumerate(workers.map(render_plate, tasks), start=1):
            images.append(pixels)
            tables.append(rows)
            if progress is not None:
                progress(done, len(tasks))
    return np.concatenate(images), pd.concat(tables, ignore_index=True)


def render_plate(task: PlateTask) -> tuple[NDArray[np.uint8], pd.DataFrame]:
    """Render one plate in the two passes of ingest: the plate's illumination and percentiles, then every field."""
    design, plan, laboratory = task.experiment.design, task.plan, task.source.laboratory
    wells = imaged_wells(task.experiment, task.source)
    sites = [(well, compound, site) for well, compound in wells for site in range(1, design.sites_per_well + 1)]
    kept = [STAINS.index(stain) for stain in plan.channels]
    names = (task.batch, task.plate)
    raw = [
        render_field(task.experiment.seed, laboratory, names, well, compound, site, design)[kept]
        for well, compound, site in sites
    ]
    sums = PlateSums(len(kept), (design.field_px, design.field_px))
    for field in raw:
        sums.add(list(field))
    light = estimate(sums, plan.ingest.illumination, high_percentile=plan.ingest.plate_high_percentile)
    gains = np.float32(1) / light.full() if light.corrects else None
    images = np.zeros((len(raw), len(kept), plan.centre, plan.centre), dtype=np.uint8)
    for place, field in enumerate(raw):
        for channel, pixels in enumerate(
            compress_field(list(field), gains, light.high, plan.ingest, plan.ingest.scaling_factor)
        ):
            crop_centre(pixels, images[place, channel])
    rows = [_row(task, well, site) for well, _, site in sites]
    return images, index_table(rows)[["image_id", *METADATA_COLUMNS.values()]]


def _row(task: PlateTask, well: WellPlan, site: int) -> dict[str, object]:
    design, instrument = task.experiment.design, task.source.laboratory.described(task.experiment.design.binning)
    stored = scaled_shape((design.field_px, design.field_px), task.plan.ingest.scaling_factor)
    values = {
        "source": task.source.name,
        "batch": task.batch,
        "plate": task.plate,
        "well": well.well,
        "site": site,
        "treatment": well.treatment,
        "compound": well.compound,
        "pert_type": well.pert_type,
        "dose_um": well.dose_um,
        "pixel_size_um": instrument.pixel_size_um * design.field_px / stored[0],
        "instrument": instrument.name,
    }
    image_id = f"{task.source.name}/{task.batch}/{task.plate}/{well.well}/{site}"
    return {"image_id": image_id} | {column: values[name] for name, column in METADATA_COLUMNS.items()}
