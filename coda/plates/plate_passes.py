"""The passes over a plate, shared among worker processes, and what became of each field on the way."""

import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coda.config.params import Params
from coda.contracts.channels import nuclei_of, roles_of
from coda.contracts.manifest import BatchManifest
from coda.contracts.quality import QuarantinedField
from coda.plates.illumination import KnownLight, PlateIllumination, PlateSums
from coda.plates.index import index_row
from coda.plates.outputs import EXAMPLES, PlateFolders, Stored, field_record, store_writer, write_examples
from coda.plates.plate_plan import PlatePlan
from coda.plates.reading import FieldJob, PlateJob, SetAsideError, quarantined
from coda.plates.scaling import scaling_factor
from coda.plates.scratch import Scratch
from coda.plates.store import StoredField
from coda.plates.work import (
    CompressedField,
    CompressTask,
    Draft,
    DraftTask,
    Example,
    Making,
    SumTask,
    compress_fields,
    draft_fields,
    draft_name,
    sum_fields,
)
from coda.plates.workers import Workers

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
    """Give a plate its scratch folder, as large as parameters and disk allow, and remove it afterwards.

    Room is reckoned for decoded fields; those that are encoded already take a tenth of it.
    """
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
        report: Called with how many fields are done since the last call; a field counts in each pass.
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
    drafts: dict[str, Draft] = field(default_factory=dict)

    def first(self) -> PlateSums:
        """Sum all readable fields."""
        sums = PlateSums(len(self.job.channels), self.job.shape)
        shares = self._shares(self.state.jobs, SUM_SHARE)
        scratch, fields = self._kept()
        tasks = (
            SumTask(self.job, tuple(share), scratch, max(0, fields - start))
            for start, share in zip(_starts(shares), shares, strict=True)
        )
        readable: list[FieldJob] = []
        for share, result in zip(shares, self.workers.map(sum_fields, tasks), strict=True):
            readable += self._readable(share, dict(result.faults))
            sums.merge(result.sums)
        self.state.jobs = readable
        return sums

    def only(self, light: KnownLight) -> PlateSums:
        """Count the grey values of all readable fields, and keep each as it would be stored (`drafts`)."""
        sums = PlateSums(len(self.job.channels), self.job.shape, images=False)
        shares = self._shares(self.state.jobs, COMPRESS_SHARE)
        scratch, fields = self._kept()
        readable: list[FieldJob] = []
        with self._making(light.divisor) as making:
            tasks = (
                DraftTask(making, tuple(share), scratch, max(0, fields - start))
                for start, share in zip(_starts(shares), shares, strict=True)
            )
            for share, result in zip(shares, self.workers.map(draft_fields, tasks), strict=True):
                readable += self._readable(share, dict(result.faults))
                sums.merge(result.sums)
                self.drafts.update({share[position].name: draft for position, draft in result.drafts.items()})
        self.state.jobs = readable
        return sums

    def second(self, light: PlateIllumination, divisor: NDArray[np.float32] | None) -> list[dict[str, Any]]:
        """Correct, compress and store the fields, and return their rows of the index.

        Args:
            light: The plate's illumination and percentiles.
            divisor: What images are divided by, (channels, height, width); None for nothing.
        """
        jobs = self.state.jobs
        shown = {jobs[round(place)].name for place in np.linspace(0, len(jobs) - 1, min(EXAMPLES, len(jobs)))}
        stand = {name for name, draft in self.drafts.items() if name not in shown and draft.stands(light)}
        shares = self._shares([job for job in jobs if job.name not in stand], COMPRESS_SHARE)
        scratch, _ = self._kept()
        with self._making(divisor) as making:
            tasks = (
                CompressTask(
                    making=making,
                    jobs=tuple(share),
                    light=light,
                    shown=frozenset(place for place, job in enumerate(share) if job.name in shown),
                    scratch=scratch,
                )
                for share in shares
            )
            made = (result for results in self.workers.map(compress_fields, tasks) for result in results)
            drafted = (self._drafted(job, making, light) for job in jobs if job.name in stand)
            return self._store((next(drafted if job.name in stand else made) for job in jobs), light)

    def _store(
        self, results: Iterable[CompressedField | SetAsideError], light: PlateIllumination
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        examples: list[tuple[str, Example]] = []
        kept: list[FieldJob] = []
        wells = {well.well: well for well in self.state.plan.wells}
        with store_writer(self.manifest, self.state.plan, light, self.folders, self.params) as writer:
            for item, result in zip(self.state.jobs, results, strict=True):
                self.report(1)
                if isinstance(result, SetAsideError):
                    self.state.set_aside(item, result)
                    continue
                stored = Stored(result, writer.add(StoredField(item.place, item.site, result.shape, result.chunk)))
                record = field_record(self.manifest, self.job, item, wells[item.well], stored)
                rows.append(index_row(record, result.statistics))
                kept.append(item)
                if result.example is not None:
                    examples.append((record.image_id, result.example))
        self.state.jobs = kept
        write_examples(self.folders.batch / "examples" / f"{self.job.plate}.npz", self.job.channels, examples)
        return rows

    def _drafted(self, job: FieldJob, making: Making, light: PlateIllumination) -> CompressedField | SetAsideError:
        """Return a field that was kept as a draft; one that the disk gives back no more is made again."""
        scratch, _ = self._kept()
        chunk = None if scratch is None else scratch.pick(draft_name(job))
        if chunk is None:
            return compress_fields(CompressTask(making, (job,), light, frozenset()))[0]
        return replace(self.drafts[job.name].field, chunk=chunk)

    @contextmanager
    def _making(self, divisor: NDArray[np.float32] | None) -> Iterator[Making]:
        """Say how fields are made; gains lie in a file as long as that."""
        gains = None if divisor is None else self.folders.part(self.job.plate, ".gains.npy")
        try:
            if gains is not None and divisor is not None:
                buffer = io.BytesIO()  # numpy's own writing to a file does not say that a disk is full
                np.save(buffer, np.float32(1) / divisor, allow_pickle=False)
                gains.write_bytes(buffer.getbuffer())
            stated = self.manifest.renamed(self.params.ingest.renamed).roles
            yield Making(
                plate=self.job,
                gains=gains,
                params=self.params.ingest,
                factor=scaling_factor(self.manifest, self.params.ingest),
                bit_depth=self.manifest.instrument.bit_depth,
                nuclei=nuclei_of(roles_of(self.job.channels, stated)),
            )
        finally:
            if gains is not None:
                with suppress(OSError):
                    gains.unlink()

    def _readable(self, share: Sequence[FieldJob], faults: Mapping[int, SetAsideError]) -> list[FieldJob]:
        """Set the faults of a share aside, and return the fields that are left."""
        for position, fault in faults.items():
            self.state.set_aside(share[position], fault)
        self.report(len(share))
        return [item for position, item in enumerate(share) if position not in faults]

    def _kept(self) -> tuple[Scratch | None, int]:
        return (None, 0) if self.room is None else (self.room.scratch, self.room.fields)

    def _shares(self, jobs: Sequence[FieldJob], most: int) -> list[list[FieldJob]]:
        """Divide fields among the processes: at most so many a task, and at least four tasks a process."""
        size = max(1, min(most, -(-len(jobs) // (4 * self.workers.count))))
        return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]


def _starts(shares: Sequence[Sequence[Item]]) -> list[int]:
    return [sum(len(share) for share in shares[:number]) for number in range(len(shares))]
