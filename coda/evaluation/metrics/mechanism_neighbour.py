"""NSC and NSCB: has a compound's nearest neighbour of another compound (and batch) its mechanism? Needs labels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix, MetricResult, unit_rows


def mechanism_neighbour_accuracy(
    profiles: Matrix,
    mechanisms: Sequence[str],
    compounds: Sequence[str],
    batches: Sequence[str] | None = None,
) -> MetricResult:
    """Return the share of profiles whose nearest neighbour, by cosine similarity, has their mechanism.

    Not-same-compound (NSC; Ljosa et al. 2013), and with `batches` not-same-compound-and-batch (NSCB; Ando et al. 2017):
    what is the same is no neighbour, so neither a compound's replicates nor the look of a batch can help.

    Args:
        profiles: Shape (profiles, width); usually the mean of a treatment's wells in one batch.
        mechanisms: Mechanism of each.
        compounds: Compound of each.
        batches: Batch of each; then neighbours are of other batches, too.

    Returns:
        The share over the profiles that have a neighbour of their mechanism at all; `n` is their number.
    """
    rows, moa, who = unit_rows(profiles), np.asarray(mechanisms, dtype=str), np.asarray(compounds, dtype=str)
    allowed: NDArray[np.bool_] = who[:, None] != who[None, :]
    if batches is not None:
        where = np.asarray(batches, dtype=str)
        allowed &= where[:, None] != where[None, :]
    findable = (allowed & (moa[:, None] == moa[None, :])).any(axis=1)
    if not findable.any():
        return MetricResult(float("nan"), 0)
    similarity = np.where(allowed, rows @ rows.T, -np.inf)[findable]
    found = moa[similarity.argmax(axis=1)] == moa[findable]
    return MetricResult(float(found.mean()), int(findable.sum()))
