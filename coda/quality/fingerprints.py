"""Which stain is which: what each looks like, alone and beside the others, held against plates that are right.

The stains of the cytoplasm differ less than nuclei differ from them, and how each looks depends on microscope and
cells. What carries over is how they differ among each other: which has the finest detail, which fills the cell, which
lies together with the nuclei or with another one. So five statistics of every stain, less the mean of these stains on
the plate, and the correlations of every two stains (nuclei included, as Fisher's z) are compared with a reference for
every order in which the channels may have been named. The nuclei stay where they are: `coda.quality.identity` finds
them by themselves. Rates of false alarms and detections are in decision 0051.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.contracts.channels import Role, in_order, is_transmitted, nuclei_of
from coda.contracts.fingerprints import StainFingerprints, Usual
from coda.quality.identity import MIN_FIELDS
from coda.quality.plate_effects import robust_sd
from coda.quality.stats import QC_PREFIX, cells_column, pair_name

Floats = NDArray[np.float64]

FINGERPRINTS = "stain_fingerprints.json"
"""File beside the heads of a training run, and in the archive that a batch is compared with."""

ALONE = ("focus", "foreground", "separability", "compactness", "contrast")
"""Statistics of one stain that are compared: texture and shape, none of which has a unit."""

NUCLEUS, DENSITY = "nucleus_um2", "cells_per_mm2"
"""Area of a nucleus and number of cells, by which cell lines and seeding differ."""

TOGETHER_WEIGHT = 2.0
"""Weight of the correlations beside the statistics of single stains; chosen with the limits of decision 0051."""

MOST = 6
"""Stains of the cytoplasm whose orders are tried: 720."""

NOT_COMPARED: dict[str, object] = {
    "stains_compared": None, "stains_margin": np.nan, "stains_margin_sure": np.nan, "stains_found": "",
    "stains_remedy": "", "nucleus_ratio": np.nan, "density_ratio": np.nan,
}  # fmt: skip
"""Columns of `against_reference`, as they are where nothing can be said."""


def fingerprints_of(tables: Sequence[pd.DataFrame]) -> StainFingerprints | None:
    """Return what the stains look like on plates that are right.

    Args:
        tables: Field indexes of accepted plates, with QC statistics.

    Returns:
        None where there is no field with statistics.
    """
    filled = [_filled(table) for table in tables if len(table) and "Metadata_Plate" in table]
    fields = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    start = f"{QC_PREFIX}focus_"
    channels = in_order(str(name).removeprefix(start) for name in fields.columns if str(name).startswith(start))
    channels = tuple(name for name in channels if not is_transmitted(name))
    if not channels or len(fields) == 0:
        return None
    plates = fields.groupby(["Metadata_Source", "Metadata_Batch", "Metadata_Plate"], observed=True)
    values = _values(fields, channels)
    medians = values.groupby(plates.ngroup()).median().median()
    alone = [[key for stain in channels if (key := f"{name}_{stain}") in values] for name in ALONE]
    even = pd.concat([values[names].sub(values[names].mean(axis=1), axis=0) for names in alone], axis=1)
    varied = values.assign(**{str(name): even[name] for name in even})
    statistics = {
        str(name): Usual(usual=float(middle), spread=robust_sd(varied[name].dropna().to_numpy(np.float64)))
        for name, middle in medians.items()
        if np.isfinite(middle)
    }
    return StainFingerprints(channels=channels, plates=plates.ngroups, fields=len(fields), statistics=statistics)


def against_reference(
    fields: pd.DataFrame, roles: Mapping[str, Role], reference: StainFingerprints
) -> dict[str, object]:
    """Say in which order the stains of one plate fit a reference best.

    Args:
        fields: Field index of the plate, with QC statistics.
        roles: Channel -> role.
        reference: What the stains look like where they are named rightly.

    Returns:
        The keys of `NOT_COMPARED`: ``stains_compared``: whether two stains of the cytoplasm or more could be compared;
        ``stains_margin``: by which share of its own distance the best order is closer to the reference than the order
        as delivered, 0 where this is the best; ``stains_margin_sure``: the same from `MIN_FIELDS` fields on, else NaN;
        ``stains_found``, ``stains_remedy``: what looks like what, and what to write, '' in the best order;
        ``nucleus_ratio``, ``density_ratio``: area of a nucleus and density of cells in units of the reference's.
    """
    filled = _filled(fields)
    shared = [name for name in in_order(roles) if name in reference.channels]
    stains = [name for name in shared if roles[name] == "cytoplasm"]
    nuclei = nuclei_of({name: roles[name] for name in shared})
    found = dict(NOT_COMPARED) | {"stains_compared": False}
    if len(filled) == 0:
        return found
    values = _values(filled, (*([nuclei] if nuclei else []), *stains))
    usual = {name: item.usual for name, item in reference.statistics.items()}
    medians = values.median()
    for column, statistic in (("nucleus_ratio", NUCLEUS), ("density_ratio", DENSITY)):
        if statistic in medians and usual.get(statistic, 0.0) > 0:
            found[column] = float(medians[statistic]) / usual[statistic]
    needed = [*(f"{name}_{stain}" for name in ALONE for stain in stains), *_pairs(stains, nuclei)]
    known = [name for name in needed if name in usual and np.isfinite(medians.get(name, np.nan))]
    if not 2 <= len(stains) <= MOST or len(known) < len(needed):
        return found
    orders = list(permutations(range(len(stains))))
    distances = _distances(medians, reference, stains, nuclei, orders)
    best = int(distances.argmin())
    margin = float(distances[0] / distances[best] - 1) if distances[best] > 0 else (0.0 if best == 0 else np.inf)
    moved = [(stains[place], name) for place, name in zip(orders[best], stains, strict=True) if stains[place] != name]
    return found | {
        "stains_compared": True,
        "stains_margin": margin,
        "stains_margin_sure": margin if len(filled) >= MIN_FIELDS else np.nan,
        "stains_found": ", ".join(f"those named {shown} look like {name}" for shown, name in moved),
        "stains_remedy": ", ".join(f"what FileName_Orig{shown} has into FileName_Orig{name}" for shown, name in moved),
    }


def _filled(fields: pd.DataFrame) -> pd.DataFrame:
    return fields[fields["Metadata_pert_type"] != "empty"] if "Metadata_pert_type" in fields else fields


def _pairs(stains: Sequence[str], nuclei: str | None) -> list[str]:
    names = [*([nuclei] if nuclei else []), *stains]
    return [pair_name("corr", a, b) for a, b in combinations(in_order(names), 2)]


def _values(fields: pd.DataFrame, channels: Sequence[str]) -> pd.DataFrame:
    """Return the compared statistics of every field; correlations, by channels in their usual order, as Fisher's z."""
    columns: dict[str, pd.Series] = {}
    for name in (f"{statistic}_{stain}" for statistic in ALONE for stain in channels):
        if f"{QC_PREFIX}{name}" in fields:
            columns[name] = fields[f"{QC_PREFIX}{name}"].astype(np.float64)
    for a, b in combinations(in_order(channels), 2):
        stored = [f"{QC_PREFIX}{pair_name('corr', *pair)}" for pair in ((a, b), (b, a))]
        for column in (name for name in stored if name in fields):
            correlation = fields[column].astype(np.float64).clip(-0.99, 0.99)
            columns[pair_name("corr", a, b)] = pd.Series(np.arctanh(correlation), index=fields.index)
    counted = cells_column(fields.columns)
    places = ("height", "width", "Metadata_PixelSize_um")
    if counted is not None and all(name in fields for name in places):
        cells = fields[counted].astype(np.float64)
        area = fields["height"] * fields["width"] * fields["Metadata_PixelSize_um"].astype(np.float64) ** 2
        stain = counted.removeprefix(f"{QC_PREFIX}cells_")
        columns[DENSITY] = cells / area * 1e6
        columns[NUCLEUS] = fields[f"{QC_PREFIX}foreground_{stain}"] * area / cells.where(cells > 0)
    return pd.DataFrame(columns, index=fields.index)


def _distances(
    medians: pd.Series,
    reference: StainFingerprints,
    stains: Sequence[str],
    nuclei: str | None,
    orders: Sequence[tuple[int, ...]],
) -> Floats:
    """Return how far the plate is from the reference in every order, in spreads between fields."""
    names = [*([nuclei] if nuclei else []), *stains]
    own = np.array([[medians[f"{name}_{stain}"] for name in ALONE] for stain in stains])
    theirs = np.array([[reference.statistics[f"{name}_{stain}"].usual for name in ALONE] for stain in stains])
    spreads = [[reference.statistics[f"{name}_{stain}"].spread for stain in stains] for name in ALONE]
    width = np.maximum(np.median(np.array(spreads), axis=1), 1e-6)
    apart = np.abs((own - own.mean(axis=0))[:, None] - (theirs - theirs.mean(axis=0))[None]) / width
    alone = apart.mean(axis=2)
    pairs = list(combinations(range(len(names)), 2))
    keys = [pair_name("corr", *in_order((names[a], names[b]))) for a, b in pairs]
    size = max(float(np.median([reference.statistics[key].spread for key in keys])), 1e-6)
    own_z, their_z = (np.zeros((len(names), len(names))) for _ in range(2))
    for (a, b), key in zip(pairs, keys, strict=True):
        own_z[a, b] = own_z[b, a] = medians[key]
        their_z[a, b] = their_z[b, a] = reference.statistics[key].usual
    fixed = len(names) - len(stains)
    tried = np.array(orders)
    taken = np.concatenate([np.zeros((len(tried), fixed), dtype=np.int64), tried + fixed], axis=1)
    first, second = np.array(pairs).T
    together = np.abs(own_z[taken[:, first], taken[:, second]] - their_z[first, second]).mean(axis=1) / size
    return np.asarray(alone[tried, np.arange(len(stains))].mean(axis=1) + TOGETHER_WEIGHT * together)
