"""The two passes over a plate, shared among worker processes, and what became of each field on the way."""

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coda.config.params import Params
from coda.contracts.channels import nuclei_of, roles_of
from coda.contracts.manifest import BatchManifest
from coda.contracts.quality import QuarantinedField
from coda.plates.illumination import PlateIllumination, PlateSums
from coda.plates.index import index_row
from coda.plates.outputs import PlateFolders, Stored, field_record, store_writer, write_examples
from coda.plates.plan import PlatePlan
from coda.plates.reading import FieldJob, PlateJob, SetAsideError, quarantined
from coda.plates.scaling import scaling_factor
from coda.plates.scratch import Scratch
from coda.plates.store import StoredField
from coda.plates.work import CompressTask, Example, SumTask, compress_fields, sum_fields
from coda.plates.workers import Workers

EXAMPLES = 4
SUM_SHARE = 64
COMPRESS_SHARE = 16

Item = TypeVar("Item")


@dataclass
class Progressing:
    """A plate under way: what is left to read, what was set aside, whether all files were as the manifest says."""

    plan: PlatePlan
    jobs: list[FieldJob]
    quarantined: list[QuarantinedField] = field(default_factory=list)
    delivered: bool = True

    def set_aside(self, job: FieldJob, fault: SetAsideError) -> None:
        """Record why a field is not used."""
        self.quarantined.append(quarantined(self.plan.entry.plate, job, fault))
        self.delivered = self.delivered and not fault.delivery


@contextmanager
def scratch_of(job: PlateJob, folders: PlateFolders, gib: float) -> Iterator["Room | None"]:
    """Give a plate its scratch folder, as large as parameters and disk allow, and remove it afterwards."""
    folder = folders.part(job.plate, ".scratch")
    shutil.rmtree(folder, ignore_errors=True)  # of an ingest that was killed
    fields = int(gib * 2**30 // (len(job.channels) * job.shape[0] * job.shape[1] * 2))
    if fields == 0:
        yield None
        return
    folder.mkdir()
    try:
        least_free = shutil.disk_usage(folder).free // 2
        yield Room(Scratch(folder, (len(job.channels), *job.shape), least_free), fields)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Room:
    """A scratch folder, and how many fields it may hold."""

    scratch: Scratch
    fields: int


@dataclass(frozen=True)
class Passes:
    """Runs the passes over one plate.

    Attributes:
        job: The plate.
        state: Its fields; those set aside are taken out.
        manifest: The delivery.
        folders: Where results go.
        params: Ingest parameters.
        workers: Processes that do the work.
        report: Told how many fields are done since the last call; a field counts in each pass.
        room: Scratch folder, if there is one.
    """

    job: PlateJob
    state: Progressing
    manifest: BatchManifest
    folders: PlateFolders
    params: Params
    workers: Workers
    report: Callable[[int], None]
    room: Room | None

    def first(self) -> PlateSums:
        """Sum all readable fields."""
        sums = PlateSums(len(self.job.channels), self.job.shape)
        shares = self._shares(SUM_SHARE)
        scratch, fields = (self.room.scratch, self.room.fields) if self.room is not None else (None, 0)
        tasks = (
            SumTask(self.job, tuple(share), scratch, max(0, fields - start))
            for start, share in zip(_starts(shares), shares, strict=True)
        )
        readable: list[FieldJob] = []
        for share, result in zip(shares, self.workers.map(sum_fields, tasks), strict=True):
            sums.merge(result.sums)
            faults = dict(result.faults)
            for position, fault in faults.items():
                self.state.set_aside(share[position], fault)
            readable += [item for position, item in enumerate(share) if position not in faults]
            self.report(len(share))
        self.state.jobs = readable
        return sums

    def second(self, light: PlateIllumination, given: NDArray[np.float32] | None) -> list[dict[str, Any]]:
        """Correct, compress and store the fields, and return their rows of the index.

        Args:
            light: The plate's illumination and percentiles.
            given: Delivered functions at full size, when `light` is of them.
        """
        jobs = self.state.jobs
        shown = {round(place) for place in np.linspace(0, len(jobs) - 1, min(EXAMPLES, len(jobs)))}
        shares = self._shares(COMPRESS_SHARE)
        gains = self.folders.part(self.job.plate, ".gains.npy") if light.corrects else None
        if gains is not None:
            buffer = io.BytesIO()  # numpy's own writing to a file does not say that a disk is full
            np.save(buffer, np.float32(1) / (light.full() if given is None else given), allow_pickle=False)
            gains.write_bytes(buffer.getbuffer())
        stated = self.manifest.renamed(self.params.ingest.renamed).roles
        nuclei = nuclei_of(roles_of(self.job.channels, stated))
        tasks = (
            CompressTask(
                plate=self.job,
                jobs=tuple(share),
                light=light,
                gains=gains,
                params=self.params.ingest,
                factor=scaling_factor(self.manifest, self.params.ingest),
                bit_depth=self.manifest.instrument.bit_depth,
                nuclei=nuclei,
                shown=frozenset(place - start for place in shown),
                scratch=self.room.scratch if self.room is not None else None,
            )
            for start, share in zip(_starts(shares), shares, strict=True)
        )
        try:
            return self._store(tasks, shares, light)
        finally:
            if gains is not None:
                with suppress(OSError):
                    Path(gains).unlink()

    def _store(
        self, tasks: Iterator[CompressTask], shares: Sequence[Sequence[FieldJob]], light: PlateIllumination
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        examples: list[tuple[str, Example]] = []
        kept: list[FieldJob] = []
        wells = {well.well: well for well in self.state.plan.wells}
        with store_writer(self.manifest, self.state.plan, light, self.folders, self.params) as writer:
            for share, results in zip(shares, self.workers.map(compress_fields, tasks), strict=True):
                for item, result in zip(share, results, strict=True):
                    if isinstance(result, SetAsideError):
                        self.state.set_aside(item, result)
                        continue
                    stored = Stored(result, writer.add(StoredField(item.place, item.site, result.shape, result.chunk)))
                    record = field_record(self.manifest, self.job, item, wells[item.well], stored)
                    rows.append(index_row(record, result.statistics))
                    kept.append(item)
                    if result.example is not None:
                        examples.append((record.image_id, result.example))
                self.report(len(share))
        self.state.jobs = kept
        write_examples(self.folders.batch / "examples" / f"{self.job.plate}.npz", self.job.channels, examples)
        return rows

    def _shares(self, most: int) -> list[list[FieldJob]]:
        """Divide the fields among the processes: at most so many a task, and at least two tasks a process."""
        jobs = self.state.jobs
        size = max(1, min(most, -(-len(jobs) // (2 * self.workers.count))))
        return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]


def _starts(shares: Sequence[Sequence[Item]]) -> list[int]:
    return [sum(len(share) for share in shares[:number]) for number in range(len(shares))]
