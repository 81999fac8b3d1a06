"""The plates that are measured: many, of small images, delivered straight into the embedded object store.

One plate is rendered. All others are its fields, each shifted in a circle by a distance of its own: other bytes of the
same look and size, in a hundredth of the time.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coda.contracts.manifest import FileEntry
from coda.local.object_store import file_of_key
from coda.local.services import LANDING_BUCKET
from coda.simulation.delivery import WellJob, rendered, rendering_pool, simulate_batch, write_well
from coda.simulation.design import Design, Experiment, plan_experiment
from coda.simulation.laboratories import find_laboratory

FIELD_PX = 128
"""Side of the images, in pixels, where none is asked for. The models see the middle of a field whatever its size, so
larger images change what is stored, read and moved, and hardly the rest."""


def design_of(field_px: int) -> Design:
    """Return the design of all plates: 84 wells of 2 fields of 5 stains, 840 images of so many pixels a side."""
    return Design(
        mechanisms=8, compounds_per_mechanism=8, negcon_wells=16, poscon_wells=4, plate_wells=96, sites_per_well=2,
        field_px=field_px,
    )  # fmt: skip


SEED = 5
TEACHER, STRANGER = "lab_a", "lab_b"
"""Whose plates are trained on, and whose microscope every new source has."""


@dataclass(frozen=True)
class Delivery:
    """A batch of one source.

    Attributes:
        source: The source; it has the microscope of a built-in laboratory.
        batch: Name of the batch.
        plates: Number of its plates.
        laboratory: Built-in laboratory that it is simulated after.
    """

    source: str
    batch: str
    plates: int
    laboratory: str = STRANGER

    @property
    def folder(self) -> str:
        """Where it lies below the landing prefix, and below the folder of all plates."""
        return f"{self.source}/{self.batch}"


def experiment_of(field_px: int) -> Experiment:
    """Return the compounds and the layout of all plates."""
    return plan_experiment(SEED, design_of(field_px))


def simulate(
    delivery: Delivery, experiment: Experiment, folder: Path, workers: int, told: Callable[[str], None]
) -> Path:
    """Return the folder of a batch below `folder`; it is simulated where it is not there yet."""
    laboratory = find_laboratory(delivery.laboratory).model_copy(update={"name": delivery.source})
    names = [f"{delivery.source}_{delivery.batch}_p{number:02d}" for number in range(1, delivery.plates + 1)]
    told(f"simulating {delivery.folder}: {delivery.plates} plates")
    make = None if delivery.source == TEACHER else partial(shift_well, rendered_below=folder / "rendered")
    with rendering_pool(workers) as pool:
        simulate_batch(experiment, laboratory, delivery.batch, names, folder, workers=1, pool=pool, make=make)
    return folder / delivery.folder


def shift_well(job: WellJob, *, rendered_below: Path) -> list[FileEntry]:
    """Write the images of a well: those of the rendered plate, which is kept, each field shifted in a circle.

    Args:
        job: The well.
        rendered_below: Folder of the rendered plate; what of it is not there yet is made.
    """

    def field_of(site: int) -> NDArray[np.uint16]:
        kept = rendered_below / f"{job.plan.well}-{site}.npy"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_name(f".{os.getpid()}-{kept.name}")
            np.save(draft, rendered(replace(job, batch="b", plate="rendered"), site), allow_pickle=False)
            draft.replace(kept)
        field: NDArray[np.uint16] = np.load(kept, allow_pickle=False)
        name = f"{job.laboratory.name} {job.batch} {job.plate} {job.plan.well} {site}"
        shift = np.frombuffer(hashlib.sha256(name.encode()).digest()[:4], dtype=np.uint16) % field.shape[1]
        return np.roll(field, shift.tolist(), axis=(1, 2))

    return write_well(job, field_of)


def lay_into(objects: Path, folder: Path, delivery: Delivery) -> int:
    """Give the object store, which must not run, the files of a batch: links, in place of an upload of each.

    Args:
        objects: Folder of the store's objects.
        folder: Folder of the batch.
        delivery: Names it.

    Returns:
        Bytes of the batch as it is delivered.
    """
    bucket, total = objects / LANDING_BUCKET, 0
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = bucket / file_of_key(f"{delivery.folder}/{file.relative_to(folder).as_posix()}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(file, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target)
        total += file.stat().st_size
    return total


def take_away(objects: Path) -> None:
    """Empty the landing bucket of the object store, which must not run: no batch is read twice."""
    shutil.rmtree(objects / LANDING_BUCKET, ignore_errors=True)
    (objects / LANDING_BUCKET).mkdir(parents=True)
