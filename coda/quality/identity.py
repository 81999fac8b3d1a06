"""Are the stains what they are called? Nuclei must be in the pictures named DNA.

In Cell Painting only DNA shows compact bodies on an even ground; the four other stains show cytoplasm, whose brightness
varies within every cell. Three numbers that need no unit, gain or threshold tell them apart: Otsu's separability (one
cut into bright and dark explains most of a picture of nuclei), the share of the foreground (nuclei cover less than
cells), and the slope of the power spectrum (smooth bodies have little fine detail). Their sum, weighted so that each
counts about the same, is the nuclear score. It was highest in DNA in all 33 real fields (four cell types, two
microscopes) and, as the median over a plate, on all simulated plates that it was tried on but for one whose DNA stain
was weak (docs/quality.md); a single number was not.
"""

import numpy as np
import pandas as pd

from coda.quality.stats import QC_PREFIX

FOREGROUND_WEIGHT = 0.25
FOCUS_WEIGHT = 0.1

MIN_FIELDS = 4
"""Fields with cells that a refusal must rest on: a single sparse or crowded field errs too often (docs/quality.md)."""


def nuclear_score(fields: pd.DataFrame, stain: str) -> pd.Series:
    """Return how much each field's picture of a stain looks like nuclei; larger is more, about 0.5 to 1.5."""
    separability, foreground, focus = (
        fields[f"{QC_PREFIX}{name}_{stain}"] for name in ("separability", "foreground", "focus")
    )
    return separability - FOREGROUND_WEIGHT * foreground - FOCUS_WEIGHT * focus


def stain_identity(fields: pd.DataFrame, channels: tuple[str, ...]) -> dict[str, object]:
    """Say in which stain of one plate the nuclei are.

    Args:
        fields: Field index of the plate, with QC statistics.
        channels: Stains with statistics.

    Returns:
        ``nuclei_in``: stain in which most fields show nuclei ('' when there is no DNA stain, or none to compare with);
        ``dna_share``: share of the fields in which that is DNA; ``dna_margin``: median over fields of DNA's nuclear
        score less the highest of the others, negative when another stain looks more like nuclei;
        ``dna_margin_sure``: the same where `MIN_FIELDS` fields or more say so, else NaN.
    """
    unknown: dict[str, object] = {
        "nuclei_in": "", "dna_share": np.nan, "dna_margin": np.nan, "dna_margin_sure": np.nan,
    }  # fmt: skip
    if "DNA" not in channels or len(channels) < 2 or len(fields) == 0:
        return unknown
    scores = np.stack([nuclear_score(fields, stain).to_numpy(np.float64) for stain in channels], axis=1)
    scores = scores[np.isfinite(scores).all(axis=1)]
    if len(scores) == 0:
        return unknown
    winners = scores.argmax(axis=1)
    dna = channels.index("DNA")
    others = np.delete(scores, dna, axis=1).max(axis=1)
    margin = float(np.median(scores[:, dna] - others))
    return {
        "nuclei_in": channels[int(np.bincount(winners, minlength=len(channels)).argmax())],
        "dna_share": float((winners == dna).mean()),
        "dna_margin": margin,
        "dna_margin_sure": margin if len(scores) >= MIN_FIELDS else np.nan,
    }


def stain_match(fields: pd.DataFrame, stain: str, channels: tuple[str, ...]) -> tuple[float, float]:
    """Say whether a stain's pictures show the fields that the other stains show.

    Args:
        fields: Field index of one plate, with QC statistics; empty wells count nowhere.
        stain: The stain in question.
        channels: Stains with statistics.

    Returns:
        The median over fields of the best match (`coda.quality.coregistration`) with another stain, NaN where there is
        none; and the same where `MIN_FIELDS` fields or more say so, else NaN.
    """
    pairs = [sorted((stain, other), key=channels.index) for other in channels if other != stain]
    columns = [name for a, b in pairs if (name := f"{QC_PREFIX}match_{a}_{b}") in fields.columns]
    best = fields.loc[fields["Metadata_pert_type"] != "empty", columns].max(axis=1).dropna()
    if len(best) == 0:
        return np.nan, np.nan
    middle = float(best.median())
    return middle, middle if len(best) >= MIN_FIELDS else np.nan
