"""Ingest of one plate: two passes over its fields, a store, an index, and a record of what became of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from coda.config.params import Params
from coda.contracts.base import Contract
from coda.contracts.ingest import ContractProblem, PlateOutcome
from coda.contracts.manifest import BatchManifest
from coda.contracts.quality import QuarantinedField
from coda.plates.files import BatchFiles
from coda.plates.illumination import PlateIllumination, PlateSums, estimate
from coda.plates.index import index_row, index_table, wells_table, write_parquet
from coda.plates.outputs import (
    PlateFolders,
    Stored,
    field_record,
    save_illumination,
    store_name,
    store_writer,
    write_examples,
)
from coda.plates.plan import PlatePlan
from coda.plates.reading import FieldJob, PlateJob, SetAsideError, plate_shape, quarantined
from coda.plates.store import StoredField
from coda.plates.work import (
    CompressTask,
    Example,
    SumTask,
    compress_fields,
    sum_fields,
)
from coda.plates.workers import Workers

EXAMPLES = 4
SUM_SHARE = 64
COMPRESS_SHARE = 16

Item = TypeVar("Item")


class PlateRecord(Contract):
    """What is kept of a finished plate until its batch is finished; a restarted ingest takes it from here."""

    outcome: PlateOutcome
    delivered: bool
    quarantined: tuple[QuarantinedField, ...] = ()
    problems: tuple[ContractProblem, ...] = ()


@dataclass
class _Progressing:
    """A plate under way: what was read and what was set aside."""

    plan: PlatePlan
    jobs: list[FieldJob]
    quarantined: list[QuarantinedField] = field(default_factory=list)
    delivered: bool = True

    def set_aside(self, job: FieldJob, fault: SetAsideError) -> None:
        self.quarantined.append(quarantined(self.plan.entry.plate, job, fault))
        self.delivered = self.delivered and not fault.delivery


def ingest_plate(
    files: BatchFiles,
    manifest: BatchManifest,
    plan: PlatePlan,
    folders: PlateFolders,
    *,
    params: Params,
    workers: Workers,
    report: Callable[[int], None],
) -> PlateRecord:
    """Turn one plate's raw images into its store and tables, and write its record last of all.

    Args:
        files: The delivery.
        manifest: Its manifest.
        plan: What the plate should give; its problems refuse the plate.
        folders: Where the results go.
        params: Ingest parameters and the plate's quorum.
        workers: Processes that do the work.
        report: Called with the number of fields done since the last call; a field counts in each of two passes.

    Raises:
        TransientError: The storage is away; nothing of this plate remains.
        OSError: A result cannot be written; nothing half-written remains under a final name.
    """
    state = _Progressing(plan, list(plan.jobs), list(plan.quarantined), plan.delivered)
    reason = _refused_by_tables(plan, params.quality.plate_quorum)
    illumination = None
    readable = 0
    job = _plate_job(files, plan, params) if not reason else None
    if not reason and job is None:
        _explain_unreadable(files, state, params)
        reason = f"Not one image of this plate can be read{_first_of(state.quarantined)}."
    if job is not None:
        sums = _first_pass(job, state, workers, report)
        readable = len(state.jobs)
        reason = _below_quorum(readable, plan.expected, params.quality.plate_quorum, state.quarantined)
        if not reason:
            illumination = estimate(
                sums, params.ingest.illumination, high_percentile=params.ingest.plate_high_percentile
            )
    rows: list[dict[str, Any]] = []
    if job is not None and illumination is not None:
        rows = _second_pass(job, illumination, state, manifest, folders, params=params, workers=workers, report=report)
        readable = len(rows)
        reason = _below_quorum(readable, plan.expected, params.quality.plate_quorum, state.quarantined)
    return _finish(manifest, state, folders, rows, reason=reason, readable=readable, illumination=illumination)


def _refused_by_tables(plan: PlatePlan, quorum: float) -> str:
    if plan.problems:
        first = plan.problems[0]
        more = f" (and {len(plan.problems) - 1} more problems)" if len(plan.problems) > 1 else ""
        what = "Its tables" if first.plate else "The whole batch"
        return f"{what} cannot be used: {first.where}: found {first.found}; expected {first.expected}{more}."
    return _below_quorum(len(plan.jobs), plan.expected, quorum, plan.quarantined)


def _below_quorum(readable: int, expected: int, quorum: float, quarantined: Sequence[QuarantinedField]) -> str:
    # a share that equals the quorum is enough, whatever its last binary digit says
    if readable > 0 and readable >= quorum * expected - 1e-9:
        return ""
    found = f"Only {readable} of {expected} expected fields can be read; at least {quorum:.0%} are needed"
    return f"{found}{_first_of(quarantined)}."


def _first_of(quarantined: Sequence[QuarantinedField]) -> str:
    """Name the first field that was set aside, so that a reader knows where to look."""
    if not quarantined:
        return ""
    first = quarantined[0]
    site = "" if first.site is None else f" site {first.site}"
    more = f"; {len(quarantined) - 1} more were set aside" if len(quarantined) > 1 else ""
    return f" (well {first.well}{site}{', ' if first.channel else ''}{first.channel}: {first.reason}{more})"


def _plate_job(files: BatchFiles, plan: PlatePlan, params: Params) -> PlateJob | None:
    shape = plate_shape(files, plan.jobs, max_side=params.ingest.max_side_px)
    if shape is None:
        return None
    return PlateJob(files, plan.entry.plate, params.ingest.channels, shape, params.ingest.max_side_px)


def _explain_unreadable(files: BatchFiles, state: _Progressing, params: Params) -> None:
    """Give every field of a plate without a readable image its reason; any shape will do, for none is decoded."""
    job = PlateJob(files, state.plan.entry.plate, params.ingest.channels, (1, 1), params.ingest.max_side_px)
    for position, fault in sum_fields(SumTask(job, tuple(state.jobs))).faults:
        state.set_aside(state.jobs[position], fault)
    state.jobs = []


def _first_pass(job: PlateJob, state: _Progressing, workers: Workers, report: Callable[[int], None]) -> PlateSums:
    sums = PlateSums(len(job.channels), job.shape)
    shares = list(_shares(state.jobs, min(SUM_SHARE, -(-len(state.jobs) // (2 * workers.count)))))
    readable: list[FieldJob] = []
    results = workers.map(sum_fields, (SumTask(job, tuple(share)) for share in shares))
    for share, result in zip(shares, results, strict=True):
        sums.merge(result.sums)
        faults = dict(result.faults)
        for position, fault in faults.items():
            state.set_aside(share[position], fault)
        readable += [item for position, item in enumerate(share) if position not in faults]
        report(len(share))
    state.jobs = readable
    return sums


def _second_pass(
    job: PlateJob,
    illumination: PlateIllumination,
    state: _Progressing,
    manifest: BatchManifest,
    folders: PlateFolders,
    *,
    params: Params,
    workers: Workers,
    report: Callable[[int], None],
) -> list[dict[str, Any]]:
    shown = {round(place) for place in np.linspace(0, len(state.jobs) - 1, min(EXAMPLES, len(state.jobs)))}
    shares = list(_shares(state.jobs, min(COMPRESS_SHARE, -(-len(state.jobs) // (2 * workers.count)))))
    tasks = (
        CompressTask(
            plate=job,
            jobs=tuple(share),
            illumination=illumination,
            params=params.ingest,
            bit_depth=manifest.instrument.bit_depth,
            shown=frozenset(place - start for place in shown),
        )
        for start, share in zip(_starts(shares), shares, strict=True)
    )
    rows: list[dict[str, Any]] = []
    examples: list[tuple[str, Example]] = []
    kept: list[FieldJob] = []
    wells = {well.well: well for well in state.plan.wells}
    with store_writer(manifest, state.plan, illumination, folders, params) as writer:
        for share, results in zip(shares, workers.map(compress_fields, tasks), strict=True):
            for item, result in zip(share, results, strict=True):
                if isinstance(result, SetAsideError):
                    state.set_aside(item, result)
                    continue
                stored = Stored(result, writer.add(StoredField(item.place, item.site, result.shape, result.chunk)))
                record = field_record(manifest, job, item, wells[item.well], stored)
                rows.append(index_row(record, result.statistics))
                kept.append(item)
                if result.example is not None:
                    examples.append((record.image_id, result.example))
            report(len(share))
    state.jobs = kept
    write_examples(folders.batch / "examples" / f"{job.plate}.npz", job.channels, examples)
    return rows


def _shares(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), max(1, size)):
        yield list(items[start : start + max(1, size)])


def _starts(shares: Sequence[Sequence[Item]]) -> list[int]:
    return [sum(len(share) for share in shares[:number]) for number in range(len(shares))]


def _finish(
    manifest: BatchManifest,
    state: _Progressing,
    folders: PlateFolders,
    rows: list[dict[str, Any]],
    *,
    reason: str,
    readable: int,
    illumination: PlateIllumination | None,
) -> PlateRecord:
    entry = state.plan.entry
    store = folders.batch / store_name(entry.plate)
    if reason:
        for leftover in (store, folders.batch / "examples" / f"{entry.plate}.npz"):
            leftover.unlink(missing_ok=True)
        rows, illumination = [], None
    accepted = Counter(str(row["Metadata_Well"]) for row in rows)
    names = {"source": manifest.source, "batch": manifest.batch, "plate": entry.plate}
    wells = wells_table(state.plan.wells, dict(accepted), **names, sites_per_well=entry.sites_per_well)
    write_parquet(wells, folders.part(entry.plate, ".wells.parquet"))
    write_parquet(index_table(rows), folders.part(entry.plate, ".index.parquet"))
    if illumination is not None:
        save_illumination(folders.part(entry.plate, ".npz"), illumination)
    outcome = PlateOutcome(
        plate=entry.plate,
        outcome="refused" if reason else "accepted",
        reason=reason,
        fields_expected=state.plan.expected,
        fields_accepted=len(rows),
        fields_readable=readable,
        store="" if reason else store.name,
        store_bytes=0 if reason else store.stat().st_size,
        illumination="none" if illumination is None else illumination.origin,
        content_key=state.plan.content_key,
    )
    record = PlateRecord(
        outcome=outcome,
        delivered=state.delivered,
        quarantined=tuple(state.quarantined),
        problems=tuple(state.plan.problems),
    )
    record.write(folders.part(entry.plate, ".json"))
    return record
