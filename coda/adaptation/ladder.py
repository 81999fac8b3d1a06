"""The ladder: which self-supervision fits this batch, CODA with pairs or ODA without."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from coda.training.pairs import pairable_share


@dataclass(frozen=True)
class Rung:
    """What the ladder chose.

    Attributes:
        method: 'coda' (pairs of one treatment from different groups) or 'oda' (views of one image).
        by: What the two images of a pair must differ in; 'none' for ODA.
        pairable_share: Share of treated fields with a partner that differs in `by` (for ODA: in what was tried last).
        reason: Why, in plain words.
    """

    method: Literal["coda", "oda"]
    by: Literal["batch", "plate", "none"]
    pairable_share: float
    reason: str


def choose_rung(rows: pd.DataFrame, *, min_pairable_share: float) -> Rung:
    """Choose the self-supervision for a batch and the archived batches beside it.

    Pairs across batches are preferred (the paper, section 3); a first batch pairs across its plates, as the
    authors' code does; where too few fields find a partner, single-image views are left (ODA).

    Args:
        rows: Rows of the field index of the batch and its archive.
        min_pairable_share: Smallest share of treated fields with a partner for which pairs are used.
    """
    needed = f"at least {min_pairable_share:.0%} are needed"
    across_batches = pairable_share(rows, "batch")
    if across_batches >= min_pairable_share and across_batches > 0:
        reason = f"{across_batches:.0%} of the treated fields have a partner (the same treatment) in another batch"
        return Rung("coda", "batch", across_batches, f"CODA, pairs across batches: {reason} ({needed}).")
    across_plates = pairable_share(rows, "plate")
    if across_plates >= min_pairable_share and across_plates > 0:
        reason = f"{across_plates:.0%} of the treated fields have a partner (the same treatment) on another plate"
        but = f"only {across_batches:.0%} in another batch"
        return Rung("coda", "plate", across_plates, f"CODA, pairs across plates: {reason}, {but} ({needed}).")
    reason = f"only {across_plates:.0%} of the treated fields have a partner (the same treatment) on another plate"
    return Rung("oda", "none", across_plates, f"ODA, views of single images: {reason} ({needed}).")
