"""Delivers a batch as a laboratory would: images, load_data, plate maps and, last of all, the manifest."""

import multiprocessing
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from coda.contracts import MANIFEST_NAME, STAINS, BatchManifest
from coda.contracts.base import Slug
from coda.contracts.manifest import FileEntry, PlateEntry, version_of
from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.file_lists import with_lists
from coda.simulation.delivery_files import describe_file, write_image
from coda.simulation.delivery_tables import load_data_table, plate_map_table
from coda.simulation.design import Compound, Design, Experiment, WellPlan, plan_experiment
from coda.simulation.field import render_field
from coda.simulation.laboratories import Laboratory, find_laboratory
from coda.simulation.microscope_names import image_folder, image_names
from coda.simulation.nuisance import draw_batch, draw_plate

SIMULATION_VERSION = 1
"""Goes up when the same seed no longer gives the same bytes."""

Progress = Callable[[int, int], None]
"""Called with the fields done so far and all fields of the batch."""


@dataclass(frozen=True)
class WellJob:
    """All a worker process needs to render and write one well."""

    seed: int
    laboratory: Laboratory
    batch: str
    plate: str
    plan: WellPlan
    compound: Compound
    design: Design
    folder: Path


MakeWell = Callable[[WellJob], list[FileEntry]]
"""Writes the images of a well and returns the manifest's entries of them."""


@contextmanager
def rendering_pool(workers: int) -> Iterator[Executor | None]:
    """Give a pool of worker processes that several batches can share; nothing for a single worker.

    Processes are started afresh (not forked), so it is safe beside threads; starting them takes about a second.
    """
    if workers <= 1:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def simulate_batch(
    experiment: Experiment,
    laboratory: str | Laboratory,
    batch: str,
    plates: Sequence[str],
    out: Path,
    *,
    workers: int = 2,
    progress: Progress | None = None,
    pool: Executor | None = None,
    created_at: datetime | None = None,
    make: MakeWell | None = None,
    dispensed: Mapping[str, Mapping[str, str]] | None = None,
    images_stay: bool = False,
) -> BatchManifest:
    """Simulate a batch of plates and write it to ``<out>/<laboratory>/<batch>/`` in the JUMP way.

    The same experiment, laboratory, batch and plates give the same bytes, whatever the number of workers (on one
    machine with one set of library versions). A batch that is already there whole is left alone and its manifest
    returned; an interrupted one is written again.

    Args:
        experiment: Compounds, layout and seed, from `plan_experiment`.
        laboratory: Name of a built-in laboratory, or another one; its name becomes the source.
        batch: Name of the batch.
        plates: Names of the plates, at least one; they differ.
        out: Folder that the batch is written below.
        workers: Processes; 1 renders in this one.
        progress: Called in this process after each well.
        pool: Pool to use instead of an own one, from `rendering_pool`.
        created_at: Date in the manifest, with a time zone. Without one it is made up from the number at the end of
            the batch's name: that many weeks after 5 January 2026.
        make: Writes the images of a well in place of `render_well`; it must be importable in another process.
        dispensed: Plate -> compound of its map -> compound that its wells got in truth: a dispenser that failed. The
            plate map does not tell.
        images_stay: The manifest says that the images are in this folder, for a delivery of manifest and tables alone.

    Returns:
        The manifest that was written.

    Raises:
        ConfigError: The laboratory is unknown, a name cannot be used, or another delivery lies in the folder.
    """
    source = find_laboratory(laboratory) if isinstance(laboratory, str) else laboratory
    _check_names(batch, plates)
    folder = out / source.name / batch
    parameters = _parameters(experiment, source, batch, plates)
    if dispensed:
        parameters["dispensed"] = {plate: dict(got) for plate, got in dispensed.items()}
    present = _present_delivery(folder, parameters)
    if present is not None:
        return present
    jobs = _jobs(experiment, source, batch, plates, folder, dispensed or {})
    for plate in plates:
        (folder / image_folder(source, plate)).mkdir(parents=True, exist_ok=True)
    with nullcontext(pool) if pool is not None else rendering_pool(workers) as used:
        mapping = used.map if used is not None else map
        entries = _render(make or render_well, jobs, mapping, experiment.design, progress)
    listed, lists = with_lists(
        [_plate_entry(experiment, source, batch, plate, folder, entries[plate]) for plate in plates]
    )
    for path, data in lists.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest = BatchManifest(
        schema_version=version_of(listed),
        source=source.name,
        batch=batch,
        created_at=created_at or _made_up_date(batch),
        instrument=source.described(experiment.design.binning),
        channels=("DNA", "ER", "RNA", "AGP", "Mito"),
        plate_wells=experiment.design.plate_wells,
        plates=listed,
        images_at=str(folder.resolve()) if images_stay else None,
        simulation=parameters,
    )
    manifest.write(folder / MANIFEST_NAME)
    return manifest


def render_well(job: WellJob) -> list[FileEntry]:
    """Render and write all fields of a well, and return the manifest's entries of its images."""
    return write_well(job, partial(rendered, job))


def rendered(job: WellJob, site: int) -> NDArray[np.uint16]:
    """Return one field of a well, shape (stains, height, width)."""
    return render_field(job.seed, job.laboratory, (job.batch, job.plate), job.plan, job.compound, site, job.design)


def write_well(job: WellJob, field_of: Callable[[int], NDArray[np.uint16]]) -> list[FileEntry]:
    """Write all fields of a well, and return the manifest's entries of its images.

    Args:
        job: The well, and where it lies.
        field_of: Site, from 1 -> its field, shape (stains, height, width).
    """
    entries = []
    folder = image_folder(job.laboratory, job.plate)
    pixel_size_um = job.laboratory.optics.pixel_size_um * job.design.binning
    for site in range(1, job.design.sites_per_well + 1):
        field = field_of(site)
        names = image_names(job.laboratory, job.plate, job.plan, site)
        for stain, counts in zip(STAINS, field, strict=True):
            path = f"{folder}/{names[stain]}"
            write_image(job.folder / path, counts, pixel_size_um, job.laboratory.compression)
            entries.append(describe_file(job.folder, path))
    return entries


def _jobs(
    experiment: Experiment,
    source: Laboratory,
    batch: str,
    plates: Sequence[str],
    folder: Path,
    dispensed: Mapping[str, Mapping[str, str]],
) -> list[WellJob]:
    return [
        WellJob(
            experiment.seed, source, batch, plate, plan,
            experiment.compound(dispensed.get(plate, {}).get(plan.compound, plan.compound)), experiment.design, folder,
        )
        for plate in plates
        for plan in experiment.imaged_wells()
    ]  # fmt: skip


def _render(
    make: MakeWell,
    jobs: list[WellJob],
    mapping: Callable[[MakeWell, list[WellJob]], Iterable[list[FileEntry]]],
    design: Design,
    progress: Progress | None,
) -> dict[str, list[FileEntry]]:
    """Return plate -> entries of its images, in the order of the jobs."""
    entries: dict[str, list[FileEntry]] = {}
    for done, (job, written) in enumerate(zip(jobs, mapping(make, jobs), strict=True), start=1):
        entries.setdefault(job.plate, []).extend(written)
        if progress is not None:
            progress(done * design.sites_per_well, len(jobs) * design.sites_per_well)
    return entries


def _plate_entry(
    experiment: Experiment, source: Laboratory, batch: str, plate: str, folder: Path, images: list[FileEntry]
) -> PlateEntry:
    """Write the tables of a plate and return its entry of the manifest."""
    tables = {
        f"load_data/{plate}.csv": load_data_table(source, batch, plate, experiment),
        f"platemaps/{plate}.csv": plate_map_table(plate, experiment),
    }
    for path, text in tables.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    load_data, plate_map = tables
    return PlateEntry(
        plate=plate,
        plate_map=plate_map,
        load_data=load_data,
        sites_per_well=experiment.design.sites_per_well,
        files=(*images, *(describe_file(folder, path) for path in tables)),
    )


def _parameters(experiment: Experiment, source: Laboratory, batch: str, plates: Sequence[str]) -> dict[str, object]:
    """Return what the manifest says about the simulation: all but the compounds, whose mechanisms are the truth."""
    seed, design = experiment.seed, experiment.design
    planned = plan_experiment(seed, design).layout
    wells = {well.well: well.treatment for well, usual in zip(experiment.layout, planned, strict=True) if well != usual}
    return {
        **({"layout": wells} if wells else {}),
        "version": SIMULATION_VERSION,
        "seed": seed,
        "design": design.model_dump(mode="json"),
        # as manifests of before have it: a delivery without this nuisance is the same delivery
        "laboratory": source.model_dump(
            mode="json", exclude=None if source.variation.well_background else {"variation": {"well_background"}}
        ),
        "batch": draw_batch(seed, source, batch, design).described(),
        "plates": {plate: draw_plate(seed, source, batch, plate, design).described() for plate in plates},
    }


def _present_delivery(folder: Path, parameters: dict[str, object]) -> BatchManifest | None:
    """Return the manifest of a whole delivery that lies in the folder already, or nothing.

    Raises:
        ConfigError: It was made with other parameters.
    """
    path = folder / MANIFEST_NAME
    if not path.exists():
        return None
    manifest = BatchManifest.read(path)
    if manifest.simulation == parameters:
        return manifest
    problem = Problem(
        str(folder),
        "a delivery made with other parameters or changed since",
        "an empty folder or the same delivery",
        "Choose another folder or batch name, or delete this one.",
    )
    raise ConfigError("The batch cannot be written.", [problem])


def _check_names(batch: str, plates: Sequence[str]) -> None:
    slug = TypeAdapter(Slug)
    problems = []
    for where, name in (("batch", batch), *(("plates", plate) for plate in plates)):
        try:
            slug.validate_python(name)
        except ValidationError:
            problems.append(
                Problem(where, repr(name), "1 to 100 letters, digits, dots, hyphens or underscores", "Rename it.")
            )
    if not plates or len(set(plates)) < len(plates):
        problems.append(Problem("plates", repr(list(plates)), "at least one name, each once", "Name each plate once."))
    raise_if_any(ConfigError, "The batch cannot be named like this.", problems)


def _made_up_date(batch: str) -> datetime:
    number = re.search(r"(\d{1,4})$", batch)
    return datetime(2026, 1, 5, 8, 0, tzinfo=UTC) + timedelta(weeks=int(number.group(1)) if number else 0)
