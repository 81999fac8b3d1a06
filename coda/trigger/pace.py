"""How patient the trigger is, and what it says of a version that came to its end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Handled:
    """One batch version that came to its end while this trigger looked.

    Attributes:
        source: Laboratory.
        batch: Batch.
        digest: Digest of the manifest.
        run_id: Its run.
        state: 'released', 'incumbent_kept', 'held', 'refused' or 'failed'.
        reasons: Why, in plain words.
    """

    source: str
    batch: str
    digest: str
    run_id: str
    state: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Pace:
    """How patient the trigger is.

    Attributes:
        parallel: Runs at a time in all, whichever trigger started them; never more than one a source.
        lease_s: Seconds without a sign of life after which a run is taken over.
        attempts: Times a run is submitted before it is held, those that were lost with their machine not counted.
        losses: Times in a row that a run may be lost with its machine (a killed pod, a node that was taken back) before
            its batch version is held.
        reopen_s: Seconds after which what the machines held up is opened again, doubled each time; at once when another
            run ended well in the meantime.
        backoff_s: Seconds before the second submission; doubled each time, at most 300.
        tick_s: Seconds between two looks at the runs.
        patience_s: Seconds that a batch waits for files its manifest lists; then it is run as it is, and quality
            control says which plates are missing.
        recheck_s: Seconds between two looks for the missing files of a batch.
    """

    parallel: int = 1
    lease_s: float = 120.0
    attempts: int = 3
    losses: int = 10
    reopen_s: float = 3600.0
    backoff_s: float = 10.0
    tick_s: float = 0.5
    patience_s: float = 6 * 3600.0
    recheck_s: float = 0.0
