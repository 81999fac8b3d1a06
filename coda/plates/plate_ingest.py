"""Ingest of one plate: its fields, read once or twice, a store, an index, and a record of what became of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from coda.config.params import Params
from coda.contracts.base import Contract, Digest
from coda.contracts.ingest import ContractProblem, PlateOutcome
from coda.contracts.manifest import BatchManifest
from coda.contracts.placement import StoreReference
from coda.contracts.quality import QuarantinedField
from coda.plates.batch_files import BatchFiles
from coda.plates.earlier_illumination import EarlierLight
from coda.plates.given_illumination import functions_given, read_functions
from coda.plates.illumination import KnownLight, PlateIllumination, described, estimate, taken, untouched
from coda.plates.index import index_table, wells_table, write_parquet
from coda.plates.outputs import PlateFolders, save_illumination, store_name
from coda.plates.plate_passes import Passes, Progressing, scratch_of
from coda.plates.plate_plan import PlatePlan, recorded
from coda.plates.reading import PlateJob, plate_shape
from coda.plates.work import SumTask, sum_fields
from coda.plates.workers import Workers


class PlateRecord(Contract):
    """What is kept of a finished plate until its batch is finished; a restarted ingest takes it from here."""

    outcome: PlateOutcome
    delivered: bool
    quarantined: tuple[QuarantinedField, ...] = ()
    problems: tuple[ContractProblem, ...] = ()
    remarks: tuple[str, ...] = ()
    reference: StoreReference | None = Field(
        default=None,
        exclude_if=lambda reference: reference is None,
        description="Where its store lies by content; null where it lies in the batch folder, or was refused.",
    )
    parts: dict[str, Digest] = Field(
        default_factory=dict,
        exclude_if=lambda parts: not parts,
        description="File kept with the record -> its SHA-256.",
    )


def ingest_plate(
    files: BatchFiles,
    manifest: BatchManifest,
    plan: PlatePlan,
    folders: PlateFolders,
    *,
    params: Params,
    workers: Workers,
    report: Callable[[int], None],
    earlier: EarlierLight | None = None,
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
        earlier: Function of an earlier plate, where parameters name one for this instrument.

    Raises:
        TransientError: The storage is away; nothing of this plate remains.
        OSError: A result cannot be written; nothing half-written remains under a final name.
    """
    state = Progressing(plan, list(plan.jobs), list(plan.quarantined), plan.delivered)
    quorum = params.quality.plate_quorum
    reason = _refused_by_tables(plan, quorum)
    job = _plate_job(files, manifest, plan, params) if not reason else None
    if not reason and job is None:
        _explain_unreadable(files, state, params)
        reason = f"Not one image of this plate can be read{_first_of(state.quarantined)}."
    given = None
    if job is not None and _functions_wanted(manifest, plan, params):
        found = read_functions(files, plan.entry, job.channels, job.shape, params.ingest.illumination)
        given, state.delivered = found.functions, state.delivered and found.delivered
        plan.problems += [recorded(problem, job.plate) for problem in found.problems]
        reason = _refused_by_tables(plan, quorum)
    elif job is not None and not (manifest.preparation == "raw" and params.ingest.illumination.enabled):
        earlier = None
    elif job is not None and earlier is not None:
        misfit = earlier.misfit(manifest.instrument, job.channels, job.shape)
        plan.problems += [] if misfit is None else [recorded(misfit, job.plate)]
        reason = _refused_by_tables(plan, quorum)
    light = None
    rows: list[dict[str, Any]] = []
    readable = 0
    if job is not None and not reason:
        with scratch_of(job, folders, params.ingest.scratch_gib) as scratch:
            passes = Passes(job, state, manifest, folders, params, workers, report, scratch)
            known = _known(job, given, earlier, manifest, params)
            sums = passes.first() if known is None else passes.only(known)
            readable = len(state.jobs)
            reason = _below_quorum(readable, plan.expected, quorum, state.quarantined)
            if not reason:
                rules, high = params.ingest.illumination, params.ingest.plate_high_percentile
                if known is None:
                    light = estimate(sums, rules, high_percentile=high)
                    rows = passes.second(light, light.full() if light.corrects else None)
                else:
                    light = described(sums, known.function, known.origin, high)
                    rows = passes.second(light, known.divisor)
                readable = len(rows)
                reason = _below_quorum(readable, plan.expected, quorum, state.quarantined)
    used = earlier.sha256 if earlier is not None and light is not None and light.origin == "earlier" else None
    return _finish(
        manifest, state, folders, rows, reason=reason, readable=readable, illumination=light, illumination_sha256=used
    )


def _functions_wanted(manifest: BatchManifest, plan: PlatePlan, params: Params) -> bool:
    rules = params.ingest.illumination
    given = functions_given(plan.entry, params.ingest.channels)
    return manifest.preparation == "raw" and rules.enabled and rules.prefer_given and given


def _known(
    job: PlateJob,
    given: NDArray[np.float32] | None,
    earlier: EarlierLight | None,
    manifest: BatchManifest,
    params: Params,
) -> KnownLight | None:
    """Return the light of a plate whose images need not be seen for it, None where it is to be estimated."""
    rules = params.ingest.illumination
    if given is not None:
        return taken(given, rules)
    if earlier is not None:
        return earlier.light(job.channels)
    if manifest.preparation != "raw":
        return untouched(len(job.channels), job.shape, rules, "prepared")
    return None if rules.enabled else untouched(len(job.channels), job.shape, rules, "off")


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


def _plate_job(files: BatchFiles, manifest: BatchManifest, plan: PlatePlan, params: Params) -> PlateJob | None:
    most = params.ingest.max_side_px
    shape = plate_shape(files, plan.jobs, max_side=most)
    if shape is None:
        return None
    return PlateJob(
        files, plan.entry.plate, params.ingest.channels, shape, most, prepared=manifest.preparation != "raw"
    )


def _explain_unreadable(files: BatchFiles, state: Progressing, params: Params) -> None:
    """Give every field of a plate without a readable image its reason; any shape will do, for none is decoded."""
    job = PlateJob(files, state.plan.entry.plate, params.ingest.channels, (1, 1), params.ingest.max_side_px)
    for position, fault in sum_fields(SumTask(job, tuple(state.jobs))).faults:
        state.set_aside(state.jobs[position], fault)
    state.jobs = []


def _finish(
    manifest: BatchManifest,
    state: Progressing,
    folders: PlateFolders,
    rows: list[dict[str, Any]],
    *,
    reason: str,
    readable: int,
    illumination: PlateIllumination | None,
    illumination_sha256: str | None,
) -> PlateRecord:
    entry = state.plan.entry
    store = folders.batch / store_name(entry.plate)
    if reason:
        for leftover in (store, folders.batch / "examples" / f"{entry.plate}.npz"):
            leftover.unlink(missing_ok=True)
        rows, illumination = [], None
    accepted = Counter(str(row["Metadata_Well"]) for row in rows)
    names = {"source": manifest.source, "batch": manifest.batch, "plate": entry.plate}
    wells = wells_table(state.plan.wells, dict(accepted), **names, sites=state.plan.sites)
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
        illumination_sha256=None if reason else illumination_sha256,
        content_key=state.plan.content_key,
    )
    record = PlateRecord(
        outcome=outcome,
        delivered=state.delivered,
        quarantined=tuple(state.quarantined),
        problems=tuple(state.plan.problems),
        remarks=tuple(state.plan.remarks),
    )
    record.write(folders.part(entry.plate, ".json"))
    return record
