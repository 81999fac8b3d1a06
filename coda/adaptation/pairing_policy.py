"""The pairing policy: which self-supervision fits this batch, CODA with pairs or ODA without."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from coda.config.params import Adaptation, Pairs
from coda.contracts.recipe import RECIPES, Method
from coda.evaluation.percentages import against
from coda.training.pairs import pairable_share

AdaptedExtractor = Literal["adapted", "adapted_oda"]
"""An extractor that is adapted in a run; the second one where both ODA and CODA are candidates."""


@dataclass(frozen=True)
class PairingPolicy:
    """What the pairing policy chose.

    Attributes:
        method: 'coda' (pairs of one treatment from different groups) or 'oda' (views of one image).
        by: What the two images of a pair must differ in; 'none' for ODA.
        pairable_share: Share of treated fields with a partner that differs in `by` (for ODA: in what was tried last).
        reason: Why, in plain words.
    """

    method: Method
    by: Literal["batch", "plate", "none"]
    pairable_share: float
    reason: str


def choose_pairing(
    rows: pd.DataFrame, *, min_pairable_share: float, by: Literal["batch", "plate", "none"] = "batch"
) -> PairingPolicy:
    """Choose the self-supervision for a batch and the archived batches beside it.

    Pairs across batches are preferred (the paper, section 3); a first batch pairs across its plates, as the
    authors' code does; where too few fields find a partner, single-image views are left (ODA).

    Args:
        rows: Rows of the field index of the batch and its archive.
        min_pairable_share: Smallest share of treated fields with a partner for which pairs are used.
        by: What the parameters want pairs to differ in: 'batch' (the order above), 'plate' (the authors' code: any
            other plate, of the same batch too), or 'none' (ODA whatever there is).
    """
    if by == "none":
        return single_images(rows, "as the parameters ask for (pairs.by: none)")
    across_batches = pairable_share(rows, "batch")
    if by == "batch" and across_batches >= min_pairable_share and across_batches > 0:
        found, needed = against(across_batches, min_pairable_share)
        reason = f"{found} of the treated fields have a partner (the same treatment) in another batch"
        return PairingPolicy(
            "coda", "batch", across_batches, f"CODA, pairs across batches: {reason} ({_needed(needed)})."
        )
    across_plates = pairable_share(rows, "plate")
    found, needed = against(across_plates, min_pairable_share)
    if across_plates >= min_pairable_share and across_plates > 0:
        reason = f"{found} of the treated fields have a partner (the same treatment) on another plate"
        few, _ = against(across_batches, min_pairable_share)
        but = f"only {few} in another batch" if by == "batch" else "as the parameters ask for"
        return PairingPolicy(
            "coda", "plate", across_plates, f"CODA, pairs across plates: {reason}, {but} ({_needed(needed)})."
        )
    reason = f"only {found} of the treated fields have a partner (the same treatment) on another plate"
    return PairingPolicy("oda", "none", across_plates, f"ODA, views of single images: {reason} ({_needed(needed)}).")


def _needed(share: str) -> str:
    return f"at least {share} are needed"


def single_images(rows: pd.DataFrame, why: str) -> PairingPolicy:
    """Return the pairing of ODA for a reason other than missing pairs.

    Args:
        rows: Rows of the field index of the batch and its archive.
        why: Why, to end a sentence.
    """
    return PairingPolicy("oda", "none", pairable_share(rows, "plate"), f"ODA, views of single images, {why}.")


def pairings_for(rows: pd.DataFrame, adaptation: Adaptation, pairs: Pairs) -> dict[AdaptedExtractor, PairingPolicy]:
    """Return how each adapted extractor is trained: one as the pairs allow, and ODA beside CODA where both are wanted.

    Args:
        rows: Rows of the field index of the batch and its archive.
        adaptation: ``candidates`` and ``min_pairable_share`` are read.
        pairs: ``by`` is read.

    Returns:
        'adapted' always (whether or not a candidate needs it); 'adapted_oda' where the candidates list ODA and CODA and
        the pairing policy chose CODA. Candidates that list ODA alone get ODA.
    """
    chosen = choose_pairing(rows, min_pairable_share=adaptation.min_pairable_share, by=pairs.by)
    listed = {RECIPES[name].method for name in adaptation.candidates if name in RECIPES}
    if "oda" not in listed or chosen.method == "oda":
        return {"adapted": chosen}
    alone = single_images(rows, "as the candidates ask for")
    return {"adapted": chosen, "adapted_oda": alone} if "coda" in listed else {"adapted": alone}
