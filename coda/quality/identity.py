"""Are the stains what they are called? Nuclei must be in the pictures of the channel with that role.

In Cell Painting only DNA shows compact bodies on an even ground; the four other stains show cytoplasm, whose brightness
varies within every cell. Three numbers that need no unit, gain or threshold tell them apart: Otsu's separability (one
cut into bright and dark explains most of a picture of nuclei), the share of the foreground (nuclei cover less than
cells), and the slope of the power spectrum (smooth bodies have little fine detail). Their sum, weighted so that each
counts about the same, is the nuclear score. It was highest in DNA in all 33 real fields (four cell types, two
microscopes) and, as the median over a plate, on all simulated plates that it was tried on but for one whose DNA stain
was weak (decision 0049); a single number was not.

Of the stains of other assays nobody has tried it: those without a role are compared, too, but refuse nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.contracts.channels import Role, nuclei_of
from coda.quality.stats import QC_PREFIX, pair_name

FOREGROUND_WEIGHT = 0.25
FOCUS_WEIGHT = 0.1

MIN_FIELDS = 4
"""Fields with cells that a refusal must rest on: a single sparse or crowded field errs too often (decision 0049)."""


def nuclear_score(fields: pd.DataFrame, stain: str) -> pd.Series:
    """Return how much each field's picture of a stain looks like nuclei; larger is more, about 0.5 to 1.5."""
    separability, foreground, focus = (
        fields[f"{QC_PREFIX}{name}_{stain}"] for name in ("separability", "foreground", "focus")
    )
    return separability - FOREGROUND_WEIGHT * foreground - FOCUS_WEIGHT * focus


def stain_identity(fields: pd.DataFrame, channels: tuple[str, ...], roles: Mapping[str, Role]) -> dict[str, object]:
    """Say in which stain of one plate the nuclei are.

    Args:
        fields: Field index of the plate, with QC statistics.
        channels: Channels with statistics.
        roles: Their roles; transmitted light is not compared.

    Returns:
        ``nuclei_channel``: the channel with that role, '' where there is none; ``nuclei_in``: stain in which most
        fields show nuclei ('' when no channel has that role, or there is none to compare with); ``dna_share``: share
        of the fields in which that is the nuclei channel; ``dna_margin``: median over fields of its nuclear score
        less the highest of the others, negative when another stain looks more like nuclei; ``dna_margin_sure``: the
        same against stains of the cytoplasm alone, where `MIN_FIELDS` fields or more say so, else NaN.
    """
    nuclei = nuclei_of({channel: roles[channel] for channel in channels if channel in roles})
    found: dict[str, object] = {
        "nuclei_channel": nuclei or "",
        "nuclei_in": "", "dna_share": np.nan, "dna_margin": np.nan, "dna_margin_sure": np.nan,
    }  # fmt: skip
    others = [name for name in channels if name != nuclei and roles.get(name) != "transmitted"]
    if nuclei is None or len(fields) == 0:
        return found
    compared = _compared(fields, nuclei, others)
    if compared is not None:
        winners, margins = compared
        names = [nuclei, *others]
        counts = {name: int((winners == place).sum()) for place, name in enumerate(names)}
        found |= {
            "nuclei_in": max(channels, key=lambda name: counts.get(name, 0)),
            "dna_share": float((winners == 0).mean()),
            "dna_margin": float(np.median(margins)),
        }
    sure = _compared(fields, nuclei, [name for name in others if roles.get(name) == "cytoplasm"])
    if sure is not None and len(sure[1]) >= MIN_FIELDS:
        found["dna_margin_sure"] = float(np.median(sure[1]))
    return found


def _compared(
    fields: pd.DataFrame, nuclei: str, others: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Return which channel looks most like nuclei in each field (0: the nuclei channel), and by how much it does."""
    if not others:
        return None
    scores = np.stack([nuclear_score(fields, name).to_numpy(np.float64) for name in (nuclei, *others)], axis=1)
    scores = scores[np.isfinite(scores).all(axis=1)]
    if len(scores) == 0:
        return None
    return scores.argmax(axis=1).astype(np.int64), scores[:, 0] - scores[:, 1:].max(axis=1)


def stain_match(
    fields: pd.DataFrame, stain: str, channels: tuple[str, ...], roles: Mapping[str, Role]
) -> tuple[float, float]:
    """Say whether a stain's pictures show the fields that the other stains show.

    Args:
        fields: Field index of one plate, with QC statistics; empty wells count nowhere.
        stain: The stain in question.
        channels: Channels with statistics.
        roles: Their roles; transmitted light is not compared.

    Returns:
        The median over fields of the best match (`coda.quality.coregistration`) with another stain, NaN where there is
        none; and the same where `MIN_FIELDS` fields or more say so, else NaN.
    """
    others = [name for name in channels if name != stain and roles.get(name) != "transmitted"]
    if roles.get(stain) == "transmitted":
        return np.nan, np.nan
    pairs = [sorted((stain, other), key=channels.index) for other in others]
    columns = [name for a, b in pairs if (name := f"{QC_PREFIX}{pair_name('match', a, b)}") in fields.columns]
    best = fields.loc[fields["Metadata_pert_type"] != "empty", columns].max(axis=1).dropna()
    if len(best) == 0:
        return np.nan, np.nan
    middle = float(best.median())
    return middle, middle if len(best) >= MIN_FIELDS else np.nan
