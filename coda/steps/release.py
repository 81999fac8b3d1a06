"""The release step: one pointer move makes an extractor and its head serve together."""

from pathlib import Path

from coda.contracts import ReleaseRecord
from coda.registry import DEFAULT_SCOPE, ReleaseLog, promote
from coda.registry.drafts import WAITING
from coda.settings import Settings


def release(draft: Path, out: Path, *, settings: Settings, run_id: str, approver: str = "gate") -> ReleaseRecord:
    """Promote a draft for its source; a source release also becomes the default. Repeating it changes nothing.

    A draft that waits for a person is not promoted by the gate: what serves the source stays.

    Args:
        draft: ReleaseRecord from a register step.
        out: File to write: the release that serves the source now.
        settings: Where MLflow and the platform bucket are.
        run_id: Run that releases.
        approver: 'gate', or the person who approves.

    Returns:
        The release that serves the source now.

    Raises:
        IntegrityError: A model is not the recorded one; nothing moved.
        ConfigError: Extractor and head do not belong together; nothing moved.
        ConflictError: Somebody else moved the pointer at the same moment.
        TransientError: A service does not answer; repeating the step is safe.
    """
    record = ReleaseRecord.read(draft)
    log = ReleaseLog(settings)
    waiting = record.approver == WAITING and approver == "gate"
    if waiting or record.run_id != run_id:
        kept = _standing(log, record)
        kept.write(out)
        return kept
    if approver != record.approver:
        record = record.model_copy(update={"approver": approver})
    scopes = sorted({record.source, *(item.source for item in record.data)})
    if record.method == "source":
        # the default comes last: whoever finds it finds the source's own release too
        scopes.append(DEFAULT_SCOPE)
    for scope in scopes:
        _promote_once(log, record, scope, settings=settings)
    serving = log.current(record.source) or record
    serving.write(out)
    return serving


def _standing(log: ReleaseLog, record: ReleaseRecord) -> ReleaseRecord:
    """Return what serves without moving anything: a draft of another run is the incumbent, which serves already."""
    current = log.current(record.source)
    # by hand, a release may have been promoted for another source than the one it was made for
    if current != record and log.serves_anywhere(record):
        return record
    return current or log.current(DEFAULT_SCOPE) or record


def _promote_once(log: ReleaseLog, record: ReleaseRecord, scope: str, *, settings: Settings) -> None:
    entries = log.readable(scope)
    served = [entry for entry in entries if entry.release.release_id == record.release_id]
    if served and entries[-1] is not served[-1]:
        return  # it served before and somebody moved on, or back: a repeated step must not undo that
    reason = f"{record.gate_sentence} (run {record.run_id})"
    after = None if served else log.newest_number(scope)
    promote(record, scope, by=record.approver, reason=reason, settings=settings, expected_sequence=after)
