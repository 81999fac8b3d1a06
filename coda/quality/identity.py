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
        score less the highest of the others, negative when another stain looks more like nuclei.
    """
    unknown: dict[str, object] = {"nuclei_in": "", "dna_share": np.nan, "dna_margin": np.nan}
    if "DNA" not in channels or len(channels) < 2 or len(fields) == 0:
        return unknown
    scores = np.stack([nuclear_score(fields, stain).to_numpy(np.float64) for stain in channels], axis=1)
    scores = scores[np.isfinite(scores).all(axis=1)]
    if len(scores) == 0:
        return unknown
    winners = scores.argmax(axis=1)
    dna = channels.index("DNA")
    others = np.delete(scores, dna, axis=1).max(axis=1)
    return {
        "nuclei_in": channels[int(np.bincount(winners, minlength=len(channels)).argmax())],
        "dna_share": float((winners == dna).mean()),
        "dna_margin": float(np.median(scores[:, dna] - others)),
    }
