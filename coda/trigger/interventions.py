"""What a person may do to a batch version in the ledger; who did it, and why, stays written there."""

from coda.trigger.ledger import TAKEN, Ledger, LedgerState


def retry(ledger: Ledger, failed: LedgerState, who: str) -> LedgerState | None:
    """Open a failed batch version again; the next look runs it under the name it had.

    Args:
        ledger: The ledger.
        failed: Newest state of the version.
        who: Person who asks.

    Returns:
        The new state; None when the version did not fail, or somebody else was faster.
    """
    if not failed.waits_for_person:
        return None
    return ledger.append(failed.version, "landed", after=failed, reasons=(f"opened again by {who}",), attempt=0)


def release_claim(ledger: Ledger, taken: LedgerState, who: str, why: str) -> LedgerState | None:
    """Take a batch version from the trigger that holds it, without waiting for its lease to run out.

    The run itself is left alone. The next trigger that looks finds it by its name: one that is alive is looked after
    again, one that ended is concluded, one that is gone is started again.

    Args:
        ledger: The ledger.
        taken: Newest state of the version: 'claimed' or 'running'.
        who: Person who asks.
        why: Reason, for those who read the ledger later.

    Returns:
        The new state; None when nobody holds the version, or somebody else was faster.
    """
    if taken.state not in TAKEN:
        return None
    reason = f"claim of {taken.owner} released by {who}: {why}"
    # being submitted once more by the next trigger is no attempt of its own
    attempt = max(taken.attempt - 1, 0) if taken.state == "running" else taken.attempt
    return ledger.append(taken.version, "landed", after=taken, reasons=(reason,), attempt=attempt)
