"""Whether ledger, run records and release log tell the same end of every batch version."""

from collections.abc import Iterator

from coda.contracts import RunRecord
from coda.doctor.evidence import Records, RunFolder
from coda.doctor.findings import Finding, Repair
from coda.errors import Problem
from coda.trigger.ledger import Entry, LedgerState

BY = "coda doctor"


def endings(records: Records) -> Iterator[Finding]:
    """Yield what does not agree about the ends of batch versions and runs."""
    for entry in records.entries.values():
        yield from _order(entry)
        yield from _end(records, entry, records.runs.get(entry.last.run_id))
    for folder in records.unstarted:
        yield _unstarted(records, folder)
    for run in records.runs.values():
        if run.run_id not in records.entries:
            yield from _outside(records, run)


def releases_without_end(records: Records) -> Iterator[Finding]:
    """Yield releases whose run did not end with them."""
    for release_id, entries in records.released().items():
        by_gate = [entry for entry in entries if entry.action == "promote" and entry.by == "gate"]
        run_id = entries[0].release.run_id
        run, entry = records.runs.get(run_id), records.entries.get(run_id)
        if not by_gate or records.live(run_id):
            continue
        if run is not None and run.record is not None and run.record.release_id is not None:
            continue  # whether ledger and record agree is asked in `endings`
        state = f"{entry.last.state!r} in the ledger" if entry is not None else "no record of its end"
        yield Finding(
            "release",
            Problem(
                f"release {release_id} of {by_gate[0].scope}",
                f"run {run_id} with {state}",
                "a run that ended with this release",
                _again(records, run_id),
            ),
        )


def _order(entry: Entry) -> Iterator[Finding]:
    where = f"ledger of {_name(entry.last)}"
    numbers = sorted([state.sequence for state in entry.states] + [item.sequence for item in entry.unreadable])
    if numbers != list(range(1, len(numbers) + 1)):
        remedy = "A state was deleted. Restore the bucket's own version of it; the newest state is what counts."
        yield Finding("ledger", Problem(where, f"states {numbers}", "states without a gap", remedy))
    for before, after in zip(entry.states, entry.states[1:], strict=False):
        if before.final and before.state != "failed":
            found = f"{after.state!r} (state {after.sequence}) after {before.state!r}"
            remedy = f"Find out what {after.owner} is; `coda ledger show {after.source}/{after.batch}` has the times."
            yield Finding("ledger", Problem(where, found, "nothing after an end", remedy))


def _end(records: Records, entry: Entry, run: RunFolder | None) -> Iterator[Finding]:
    last = entry.last
    record = run.record if run is not None else None
    if record is not None and (not last.final or last.state == "failed"):
        yield _unrecorded(records, last, record)
    elif not last.final:
        yield from _expired(records, last)
    elif last.state in ("released", "incumbent_kept", "held") or record is not None:
        yield from _agreement(records, last, record)
    elif last.state in ("failed", "refused") and run is not None and run.accepted:
        name = f"batch {_name(last)}, version {last.manifest_digest[:16]}"
        found = f"accepted by quality control, then {last.state!r}: {' '.join(last.reasons)[:300]}"
        remedy = f"Put right what the reasons say, then: coda ledger retry {last.source}/{last.batch}"
        if last.state == "refused":
            remedy = "Deliver its manifest again with a new created_at, if it should be used."
        yield Finding("decision", Problem(name, found, "a decision of the gate", remedy))


def _unrecorded(records: Records, last: LedgerState, record: RunRecord) -> Finding:
    problem = Problem(
        f"ledger of {_name(last)}",
        f"{last.state!r}",
        f"{record.outcome!r}, as in runs/{record.run_id}/run.json",
        "`coda doctor --repair` writes it down; a running trigger does so by itself.",
    )

    def act() -> bool:
        reasons = (record.sentence, f"written down by {BY}")
        return records.ledger.append(last.version, record.outcome, after=last, reasons=reasons) is not None

    return Finding("unrecorded_end", problem, Repair(f"{_name(last)} is {record.outcome!r} in the ledger.", act))


def _expired(records: Records, last: LedgerState) -> Iterator[Finding]:
    if last.state == "landed" or records.ledger.silence(last) < records.lease:
        return
    problem = Problem(
        f"ledger of {_name(last)}",
        f"{last.state!r} by {last.owner}, without a sign of life for {_hours(records, last)}",
        "a run that somebody looks after, or its end",
        "Start a trigger, which takes it over; or `coda doctor --repair` opens it again for the next one.",
    )

    def act() -> bool:
        # the run has one name, and whoever submits it looks it up first: a run that is alive after all is found again
        reasons = (f"opened again by {BY}: no sign of life from {last.owner}",)
        return records.ledger.append(last.version, "landed", after=last, reasons=reasons) is not None

    yield Finding("expired_claim", problem, Repair(f"{_name(last)} is open for the next trigger.", act))


def _agreement(records: Records, last: LedgerState, record: RunRecord | None) -> Iterator[Finding]:
    where = f"ledger of {_name(last)}"
    if record is None:
        remedy = "Restore runs/<run_id>/run.json from the bucket's own versions; until then its results have no record."
        yield Finding("ledger", Problem(where, f"{last.state!r} without a run record", "its run.json", remedy))
        return
    if record.outcome != last.state:
        found, expected = f"{last.state!r}", f"{record.outcome!r}, as in runs/{record.run_id}/run.json"
        remedy = f"Compare `coda ledger show {last.source}/{last.batch}` with the run record; one of them was changed."
        yield Finding("ledger", Problem(where, found, expected, remedy))
        return
    served = records.released().get(record.release_id or "")
    if last.state in ("released", "incumbent_kept") and not served:
        remedy = f"Promote it, if it should serve: coda registry promote {record.release_id} --reason WHY"
        found = f"{last.state!r} with release {record.release_id}"
        yield Finding("release", Problem(where, found, "this release in the release log", remedy))
    elif last.state == "released":
        times = [entry for entry in records.log.get(last.source, ()) if entry.release.run_id == last.run_id]
        promotions = [entry for entry in times if entry.action == "promote" and entry.by == "gate"]
        if len(promotions) != 1:
            found = f"{len(promotions)} promotion(s) of run {last.run_id} by the gate"
            remedy = f"Look at `coda registry history {last.source}`; the log is append-only, so both stay on record."
            yield Finding("release", Problem(f"release log of {last.source}", found, "exactly one", remedy))


def _unstarted(records: Records, folder: str) -> Finding:
    key = f"{folder}claim.json"
    problem = Problem(
        key,
        "a claim without any state",
        "states of a batch version",
        "The trigger writes a state before it claims: find out who deleted the states.",
    )

    def act() -> bool:
        records.store.delete(key)
        return True

    return Finding("ledger", problem, Repair(f"{key} is gone; the next trigger sees the batch as new.", act))


def _outside(records: Records, run: RunFolder) -> Iterator[Finding]:
    if run.run_id.startswith("adapt-") and not records.live(run.run_id):
        remedy = "The ledger of this batch was deleted. Restore it, or the batch will be run again when it is seen."
        yield Finding(
            "run_folder", Problem(f"runs/{run.run_id}", "a run of the trigger", "its batch in the ledger", remedy)
        )
    elif run.record is None and not records.live(run.run_id):
        found = "a run that nobody looks after, without an end"
        remedy = f"Start it again under its name (`coda pipeline run ... --run-id {run.run_id}`), or delete the folder."
        yield Finding("run_folder", Problem(f"runs/{run.run_id}", found, "the record of its end", remedy))


def _again(records: Records, run_id: str) -> str:
    entry = records.entries.get(run_id)
    if entry is None:
        return (
            f"Start the run again under its name (`coda pipeline run ... --run-id {run_id}`): it ends where it stopped."
        )
    return f"coda ledger retry {entry.last.source}/{entry.last.batch}: the run resumes where it stopped."


def _hours(records: Records, last: LedgerState) -> str:
    seconds = records.ledger.silence(last).total_seconds()
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def _name(state: LedgerState) -> str:
    return f"{state.source}/{state.batch}"
