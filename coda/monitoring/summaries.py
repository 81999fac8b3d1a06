"""The accepted history of a source: one small document a batch, beside its report.

Prometheus must not hold a series for each batch: `reports/<source>/<batch>/<digest>/summary.json` has what the next
report compares with; the table of batches (`coda.monitoring.batch_row`) has every number. Drift is judged against it,
as a distance from the median of accepted batches of the same microscope or as a percentile among them; a fixed limit
would fire on every batch.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, Field

from coda.contracts.base import Contract, Digest, Slug
from coda.storage.objects import ObjectStore
from coda.storage.records import UnreadableRecordError, find_record

log = logging.getLogger(__name__)

Rule = Callable[[float, Sequence[float]], float | None]

MOST = 50
"""Newest summaries that are read; older ones say little about today."""

MIN_BATCHES = 4
"""Accepted batches needed before anything is compared with them."""

MAD_TO_SD = 1.4826
FLOOR = 0.01
"""Smallest spread that counts, as a share of the median's size: identical batches must not make any change infinite."""


class BatchSummary(Contract):
    """Numbers of one batch that later batches are compared with."""

    source: Slug
    batch: Slug
    manifest_digest: Digest
    instrument: str
    at: AwareDatetime = Field(description="When the report was written.")
    created_at: AwareDatetime = Field(description="When the producer finished the batch.")
    verdict: str
    outcome: str = Field(description="The gate's outcome; empty when no gate judged.")
    acquisition: dict[str, float] = Field(description="'<stain>/<statistic>' -> median over fields.")
    drift_before: dict[str, float] = Field(default_factory=dict)
    drift_after: dict[str, float] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Key of the document in the platform bucket."""
        return f"{report_prefix(self.source, self.batch, self.manifest_digest)}summary.json"


def report_prefix(source: str, batch: str, digest: str) -> str:
    """Return where the report of one batch version lies in the platform bucket; ends in a slash."""
    return f"reports/{source}/{batch}/{digest}/"


def gate_key(source: str, batch: str, digest: str) -> str:
    """Return where the report of one batch version keeps the gate's decision."""
    return f"{report_prefix(source, batch, digest)}gate.json"


def read_history(store: ObjectStore, source: str, *, without: Collection[str]) -> list[BatchSummary]:
    """Return the summaries of a source's earlier batches, in the order in which the store got them, oldest first.

    The producers' own times say when plates were made, and may be wrong by years: they put nothing in order here.

    A summary that cannot be read is left out with a warning: the history informs a report, it must not stop one.

    Args:
        store: The platform bucket.
        source: Laboratory.
        without: Manifest digests of the batches that are compared, so that a repeated run does not meet itself.
    """
    listed = [item for item in store.list(f"reports/{source}/") if item.key.endswith("/summary.json")]
    found = []
    for item in sorted(listed, key=lambda item: item.modified)[-MOST:]:
        try:
            summary = find_record(store, item.key, BatchSummary)
        except UnreadableRecordError as error:
            log.warning("%s is left out of the history: %s", item.key, error.message)
            continue
        if summary is not None and summary.manifest_digest not in without:
            found.append((item.modified, summary.at, summary))
    return [summary for _, _, summary in sorted(found, key=lambda row: row[:2])]


def robust_z(value: float, earlier: Sequence[float]) -> float | None:
    """Return the distance from the median in scaled median absolute deviations, or None with too short a history."""
    if len(earlier) < MIN_BATCHES:
        return None
    reference = np.asarray(earlier, dtype=np.float64)
    median = float(np.median(reference))
    return (value - median) / _spread(reference, median)


def _spread(reference: NDArray[np.float64], median: float) -> float:
    spread = MAD_TO_SD * float(np.median(np.abs(reference - median)))
    return max(spread, FLOOR * abs(median), 1e-9)


def limits(earlier: Sequence[float], deviations: float = 5.0) -> tuple[float, float] | None:
    """Return the ends of what is usual: median -+ so many scaled MADs, or None with too short a history."""
    if len(earlier) < MIN_BATCHES:
        return None
    reference = np.asarray(earlier, dtype=np.float64)
    median = float(np.median(reference))
    return median - deviations * _spread(reference, median), median + deviations * _spread(reference, median)


def percentile(value: float, earlier: Sequence[float]) -> float | None:
    """Return the share of earlier values below this one, 0 to 1, or None with too short a history."""
    if len(earlier) < MIN_BATCHES:
        return None
    return float(np.mean(np.asarray(earlier) < value))


def accepted(history: Sequence[BatchSummary], *, instrument: str | None = None) -> list[BatchSummary]:
    """Return the accepted batches, of one microscope when it is given."""
    return [
        summary
        for summary in history
        if summary.verdict != "refused" and (instrument is None or summary.instrument == instrument)
    ]


def acquisition_z(summary: BatchSummary, history: Sequence[BatchSummary]) -> dict[str, float]:
    """Return the robust z of each image statistic against accepted batches of the same microscope."""
    earlier = accepted(history, instrument=summary.instrument)
    return _compared(summary.acquisition, [past.acquisition for past in earlier], robust_z)


def drift_percentiles(summary: BatchSummary, history: Sequence[BatchSummary]) -> dict[str, float]:
    """Return the percentile of each drift before adaptation among accepted batches."""
    return _compared(summary.drift_before, [past.drift_before for past in accepted(history)], percentile)


def not_released_in_a_row(summary: BatchSummary, history: Sequence[BatchSummary]) -> int:
    """Return how many of the newest judged batches ended without a release, this one included.

    Args:
        summary: The batch that is reported now, which is the newest whatever its producer's clock says.
        history: Earlier batches, oldest first.
    """
    count = 0
    for past in reversed([*history, summary]):
        if past.outcome == "release":
            break
        count += bool(past.outcome)
    return count


def _compared(values: Mapping[str, float], earlier: Sequence[Mapping[str, float]], rule: Rule) -> dict[str, float]:
    found = {}
    for name, value in values.items():
        result = rule(value, [past[name] for past in earlier if name in past])
        if result is not None:
            found[name] = result
    return found
