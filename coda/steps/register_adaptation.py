"""Registering an adaptation run: the candidate that the gate chose, as versions and a draft of their release."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from coda.adaptation.candidates import ADAPTED, UNTOUCHED, Candidate, read_candidates
from coda.config import params_digest
from coda.config.params import Params
from coda.contracts import DataRevision, GateReport, ModelRef, ReleaseRecord
from coda.contracts.recipe import ALIGNMENTS
from coda.errors import ConfigError, IntegrityError, Problem
from coda.networks import artifact
from coda.registry import DEFAULT_SCOPE, HEAD, Provenance, ReleaseLog, describe, find, register_extractor
from coda.registry.drafts import WAITING, keep_draft, keep_params, release_name
from coda.settings import Settings
from coda.steps.adapt import BASE_RELEASE, INCUMBENT_RELEASE
from coda.steps.record import code_version, lock_digest
from coda.steps.tracked_run import track_adaptation
from coda.steps.version import read_revisions


@dataclass(frozen=True)
class _Run:
    """What one adaptation run knows when it registers."""

    candidates: Path
    models: Path
    report: GateReport
    data: tuple[DataRevision, ...]
    base: ReleaseRecord
    params: Params
    settings: Settings
    run_id: str

    @property
    def params_digest(self) -> str:
        """Digest of the run's parameters."""
        return params_digest(self.params)


def register_adaptation(
    candidates: Path,
    gate: Path,
    revisions: Path,
    out: Path,
    *,
    params: Params,
    settings: Settings,
    run_id: str,
    models: Path | None = None,
) -> ReleaseRecord:
    """Register the gate's choice, and draft the release that binds it to a frozen head.

    The gate releases: the chosen candidate, with a new extractor version when the candidate was adapted. It holds:
    the same, but the draft waits for a person. It keeps the incumbent, or refuses: the draft is the release that
    serves already, unchanged and without a new version. A source without one that keeps the baseline gets the
    default's extractor with its head on raw tokens; one that is refused gets nothing of its own, since nothing was
    found fit: the draft is the default's release.

    Args:
        candidates: Candidates folder of the adaptation.
        gate: ``gate.json``.
        revisions: ``revisions.json``.
        out: File to write: the draft, a ReleaseRecord.
        params: Parameters of the run.
        settings: Where MLflow and the platform bucket are.
        run_id: The run; registering it again returns the same versions.
        models: Folder with the adapted extractors; `candidates` when not given.

    Raises:
        IntegrityError: The candidates are not the ones that were judged, or do not come from a registered release.
        ConfigError: The base release has no head for the choice.
        TransientError: MLflow or the object store does not answer; repeating the step is safe.
    """
    report = GateReport.read(gate)
    offered = {item.name: item for item in read_candidates(candidates)}
    log = ReleaseLog(settings)
    base = _base(candidates, log)
    run = _Run(candidates, models or candidates, report, read_revisions(revisions), base, params, settings, run_id)
    record, made = _decided(run, offered, log, gate)
    extractor = made.extractor if made is not None and made.extractor != base.extractor else None
    track_adaptation(candidates, report, run.data, extractor, params=params, settings=settings, run_id=run_id)
    if made is None:
        record.write(out)
        return record
    keep_params(run_id, params.model_dump(mode="json"), settings=settings)
    return keep_draft(made, out, settings=settings)


def _decided(
    run: _Run, offered: Mapping[str, Candidate], log: ReleaseLog, gate: Path
) -> tuple[ReleaseRecord, ReleaseRecord | None]:
    """Return what serves by the gate's decision, and the same where it is a new record of this run."""
    report, base = run.report, run.base
    if report.outcome in ("keep_incumbent", "refuse"):
        incumbent = _incumbent(run.candidates, report.source, log)
        if incumbent is not None:
            return incumbent, None
        if report.outcome == "refuse":
            return base, None
        unadapted = Candidate(name="unadapted", extractor="base", alignment="none", head="none")
        record = _record(run, unadapted, base.extractor, approver="gate")
    else:
        chosen = offered.get(report.chosen or "")
        if chosen is None:
            found = f"chosen {report.chosen!r}"
            problem = Problem(str(gate), found, f"one of {', '.join(offered)}", "Run the gate on these candidates.")
            raise IntegrityError("The gate chose a candidate that is not there.", [problem])
        approver = "gate" if report.outcome == "release" else WAITING
        record = _record(run, chosen, _extractor(run, chosen), approver=approver)
    return record, record


def _base(candidates: Path, log: ReleaseLog) -> ReleaseRecord:
    """Return the release that the candidates were made from, as the release log holds it.

    It need not serve any more: another training run may have moved the default on since.
    """
    return _served(
        candidates / BASE_RELEASE, DEFAULT_SCOPE, log, "The candidates do not come from a registered release."
    )


def _incumbent(candidates: Path, source: str, log: ReleaseLog) -> ReleaseRecord | None:
    """Return the release that the gate measured as the incumbent; where there was none, what serves the source now."""
    path = candidates / INCUMBENT_RELEASE
    if not path.is_file():
        return log.current(source)
    return _served(path, source, log, "The incumbent is not a registered release.")


def _served(path: Path, scope: str, log: ReleaseLog, wrong: str) -> ReleaseRecord:
    record = ReleaseRecord.read(path)
    if any(entry.release == record for entry in log.readable(scope)):
        return record
    found, expected = f"release {record.release_id}", f"a release that served {scope!r}"
    problem = Problem(str(path), found, expected, "Run the adaptation again, and find out who changed the file.")
    raise IntegrityError(wrong, [problem])


def _extractor(run: _Run, chosen: Candidate) -> ModelRef:
    if chosen.extractor in UNTOUCHED:
        return run.base.extractor
    extractor, state = (run.models / folder for folder in ADAPTED[chosen.extractor])
    digest = artifact.folder_digest(extractor)
    if chosen.extractor_digest is not None and digest != chosen.extractor_digest:
        remedy = "Run the adaptation again, and find out who changed the folder."
        problem = Problem(str(extractor), f"digest {digest}", f"digest {chosen.extractor_digest}", remedy)
        raise IntegrityError("The adapted extractor is not the one that was judged.", [problem])
    base = run.base
    provenance = Provenance(
        run_id=run.run_id,
        source=run.report.source,
        params_digest=run.params_digest,
        data=run.data,
        code_version=code_version(),
        image=run.settings.image,
        lock_digest=lock_digest(),
        params=run.params.model_dump(mode="json"),
        remarks={
            "method": chosen.name,
            "base_release": base.release_id,
            "parent_version": base.extractor.version,
            "head_version": _head(run, chosen).version,
            "gate": run.report.sentence,
            "gate_digest": run.report.digest(),
            "gate_report": run.report.model_dump(mode="json"),
        },
    )
    line = describe(base.extractor, settings=run.settings).tags.get("line", base.extractor.digest)
    return register_extractor(
        extractor, state if state.is_dir() else None, provenance, settings=run.settings, line=line
    )


def _record(run: _Run, chosen: Candidate, extractor: ModelRef, *, approver: str) -> ReleaseRecord:
    head = _head(run, chosen)
    statistics = None
    if ALIGNMENTS[chosen.alignment].reads_source:
        # brings the batch's tokens to the head's training tokens: their statistics lie in the head's own folder
        statistics = describe(head, settings=run.settings).tags.get("statistics_digest")
    return ReleaseRecord(
        release_id=release_name(run.run_id),
        source=run.report.source,
        created_at=datetime.now(UTC),
        method=chosen.name,
        extractor=extractor,
        head=head,
        alignment=chosen.alignment,
        heads=run.base.heads,
        base_release=run.base.release_id,
        data=run.data,
        run_id=run.run_id,
        params_digest=run.params_digest,
        gate_sentence=run.report.sentence,
        gate_digest=run.report.digest(),
        statistics_digest=statistics,
        min_top_over_chance=run.params.predict.min_top_over_chance,
        stains=run.base.stains,
        approver=approver,
    )


def _head(run: _Run, chosen: Candidate) -> ModelRef:
    """Return the frozen head that the candidate was judged with, out of those of the base release."""
    known = {item.digest: item for item in (*run.base.heads, run.base.head)}
    if chosen.head_digest is not None:
        if chosen.head_digest in known:
            return known[chosen.head_digest]
        expected = f"a head of release {run.base.release_id}"
        remedy = "The head must stay frozen. Run the adaptation again, and find out who changed it."
        problem = Problem(f"candidate {chosen.name!r}", f"head {chosen.head_digest}", expected, remedy)
        raise IntegrityError("The candidate was judged with a head that is not registered.", [problem])
    registered = {item.ref.digest: item.tags.get("alignment") for item in find(HEAD, settings=run.settings)}
    for digest, ref in known.items():
        if registered.get(digest) == chosen.head:
            return ref
    problem = Problem(
        f"release {run.base.release_id}", "no such head", f"one of alignment {chosen.head!r}", "Train it."
    )
    raise ConfigError("The base release has no head for this candidate.", [problem])
