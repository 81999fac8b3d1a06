"""Does the plate map belong to the plate? Wells that got the same must look alike more than chance has it.

Every well is held against the other wells of its treatment on the plate (untreated wells and positive controls are
treatments, too) and against wells of that treatment on other plates. How well both fit is compared with what random
maps give, in which the same treatments lie on the same wells in random order: whatever the profiles are like, a map
that has nothing to do with the plate is among the best 5 % of these once in twenty plates (a permutation test on the
sum of squares between groups, Anderson 2001, Austral Ecology 26, 32). Rates of false alarms and detections are in
decision 0051.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.plates.layout import parse_well, well_name
from coda.quality.plate_effects import MAD_TO_SD, well_medians
from coda.quality.stats import CELLS, QC_PREFIX

Floats = NDArray[np.float64]

MIN_WELLS = 12
"""Filled wells that a plate must have before its map is tested."""

DRAWS, FEW_DRAWS = 999, 199
"""Random maps that a map is compared with, and one of `other_maps`; the smallest p-value is 1 in 1000."""

PLAIN = 5.0
"""Score from which the treatments of a plate plainly show: by chance it comes less than once in a million plates."""

LEAD = 3.0
"""By how much another map must fit better than the one delivered before it is named."""

UNTESTED: dict[str, object] = {
    "map_p": np.nan, "map_p_alone": np.nan, "map_p_sure": np.nan, "map_score": np.nan,
    "map_other": "", "map_other_score": np.nan,
}  # fmt: skip
"""Columns of `map_columns`, as they are where nothing can be said."""

COMPARED = ("p50", "contrast", "focus", "foreground", "separability", "compactness", "corr", CELLS.rstrip("_"))
"""Statistics that make up the profile of a well."""

FARTHEST = 4.0
"""A well counts as at most so many robust deviations from the plate's median."""


@dataclass(frozen=True)
class MapFit:
    """How well a map fits a plate; numbers are NaN with too few wells, or none to compare with.

    Attributes:
        p: Share of random maps that fit as well, in (0, 1].
        score: By how many standard deviations of random maps it fits better than they do on average.
        p_alone: As `p`, by the wells of the plate alone.
    """

    p: float = float("nan")
    score: float = float("nan")
    p_alone: float = float("nan")


@dataclass(frozen=True)
class Profiles:
    """The wells of one plate.

    Attributes:
        treatments: Well -> treatment, as the plate map has it; filled wells with pictures.
        values: One row a well, in robust standard deviations from the median of the plate; by statistic.
    """

    treatments: dict[str, str]
    values: pd.DataFrame


def profiles_of(fields: pd.DataFrame) -> Profiles:
    """Return the profiles of the filled wells of one plate.

    Args:
        fields: Field index of the plate, with QC statistics.
    """
    filled = fields[(fields["Metadata_pert_type"] != "empty") & fields["Metadata_Treatment"].notna()]
    wells = well_medians(filled).set_index("Metadata_Well") if len(filled) else pd.DataFrame()
    names = [name for name in wells.columns if str(name).removeprefix(QC_PREFIX).partition("_")[0] in COMPARED]
    table = wells[names].astype(np.float64)
    apart = table - table.median()
    spread = (MAD_TO_SD * apart.abs().median()).replace(0.0, np.nan)
    values = (apart / spread).clip(-FARTHEST, FARTHEST).fillna(0.0)
    treatments = wells["Metadata_Treatment"].astype(str).to_dict() if len(wells) else {}
    return Profiles({str(well): name for well, name in treatments.items()}, values)


def expected_of(plates: Sequence[Profiles]) -> dict[str, pd.Series]:
    """Return treatment -> mean profile of its wells on these plates."""
    if not any(plate.treatments for plate in plates):
        return {}
    named = [plate.values.assign(_treatment=list(plate.treatments.values())) for plate in plates if plate.treatments]
    means = pd.concat(named, ignore_index=True).groupby("_treatment").mean()
    return {str(name): row for name, row in means.iterrows()}


def map_fit(
    plate: Profiles, treatments: Mapping[str, str], expected: Mapping[str, pd.Series], draws: int = DRAWS
) -> MapFit:
    """Say how well a map fits a plate.

    Args:
        plate: The wells of the plate.
        treatments: The map: well -> treatment. Wells that it does not name are left out.
        expected: What wells of a treatment look like on other plates, see `expected_of`; it may be empty.
        draws: Random maps to compare with.
    """
    wells = sorted((well for well in plate.treatments if well in treatments), key=lambda well: (treatments[well], well))
    if len(wells) < MIN_WELLS:
        return MapFit()
    names = [treatments[well] for well in wells]
    values = plate.values.loc[wells].to_numpy(np.float64)
    nothing = pd.Series(0.0, index=plate.values.columns)
    rows = {name: expected.get(name, nothing).reindex(plate.values.columns).fillna(0.0) for name in set(names)}
    elsewhere = np.stack([rows[name].to_numpy(np.float64) for name in names])
    starts = np.array([place for place, name in enumerate(names) if place == 0 or names[place - 1] != name])
    sizes = np.diff([*starts, len(names)])[:, None]
    draw = np.random.default_rng(0)  # the same random maps for the same plate, so that a repetition finds the same
    orders = [np.arange(len(names)), *(draw.permutation(len(names)) for _ in range(draws))]
    fits = np.array([_fits(values[order], starts, sizes, elsewhere) for order in orders])
    # one that no order changes (a single well of each treatment, none elsewhere) says nothing
    spread = fits.std(axis=0)
    says = spread > 1e-9 * np.abs(fits).max(axis=0)
    if not says.any():
        return MapFit()
    standard = (fits - fits.mean(axis=0))[:, says] / spread[says]
    total = standard.sum(axis=1)
    score = (total[0] - total[1:].mean()) / total[1:].std()
    return MapFit(_share(total), float(score), _share(fits[:, 0]) if says[0] else float("nan"))


def _share(fits: Floats) -> float:
    return float((fits >= fits[0] - 1e-9 * np.abs(fits).max()).mean())


def _fits(values: Floats, starts: NDArray[np.intp], sizes: NDArray[np.intp], elsewhere: Floats) -> tuple[float, float]:
    """Return the sum of squares between treatments on the plate, and the agreement with other plates."""
    sums = np.add.reduceat(values, starts, axis=0)
    return float((sums**2 / sizes).sum()), float((values * elsewhere).sum())


def other_maps(
    treatments: Mapping[str, str], shape: tuple[int, int], of_plates: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield maps that are often delivered in place of the right one, with words for the message.

    Args:
        treatments: The map as delivered, without empty wells.
        shape: Rows and columns of the plate format.
        of_plates: Plate -> its map, of the other plates.
    """
    places = {place: name for well, name in treatments.items() if (place := parse_well(well)) is not None}
    rows, columns = shape
    turned = {(rows - 1 - row, columns - 1 - column): name for (row, column), name in places.items()}
    yield "turned by 180 degrees", _named(turned, shape)
    for words, (down, right) in {
        "shifted up by a row": (-1, 0), "shifted down by a row": (1, 0),
        "shifted left by a column": (0, -1), "shifted right by a column": (0, 1),
    }.items():  # fmt: skip
        yield words, _named({(row + down, column + right): name for (row, column), name in places.items()}, shape)
    for plate, other in of_plates.items():
        if dict(other) != dict(treatments):
            yield f"replaced by that of plate {plate}", dict(other)


def _named(places: Mapping[tuple[int, int], str], shape: tuple[int, int]) -> dict[str, str]:
    return {
        well_name(row, column): name
        for (row, column), name in places.items()
        if 0 <= row < shape[0] and 0 <= column < shape[1]
    }


def map_columns(
    index: pd.DataFrame, others: Sequence[pd.DataFrame], shape: tuple[int, int]
) -> dict[str, dict[str, object]]:
    """Say of every plate of a batch how well its map fits.

    Args:
        index: Field index of the batch, with QC statistics.
        others: Field indexes of other accepted batches of the source, whose maps are taken to be right.
        shape: Rows and columns of the plate format.

    Returns:
        Plate -> the keys of `UNTESTED`. ``map_p``: `MapFit.p` against other batches, for treatments that are in none
        of them against the batch's other plates; ``map_p_alone``; ``map_p_sure``: the same as ``map_p`` where
        treatments plainly show on the batch's other plates, else NaN; ``map_score``; ``map_other``: which of
        `other_maps` fits best, and by `LEAD` better than the one delivered, with its score; '' and NaN where none does.
    """
    plates = {str(name): profiles_of(fields) for name, fields in index.groupby("Metadata_Plate", observed=True)}
    earlier = [profiles_of(fields) for other in others for _, fields in other.groupby("Metadata_Plate", observed=True)]
    known = expected_of(earlier)
    fits: dict[str, MapFit] = {}
    found: dict[str, dict[str, object]] = {}
    for name, plate in plates.items():
        beside = {other: item for other, item in plates.items() if other != name}
        maps = {other: item.treatments for other, item in beside.items()}
        expected = {**expected_of(list(beside.values())), **known}
        fits[name] = fit = map_fit(plate, plate.treatments, expected)
        found[name] = UNTESTED | {"map_p": fit.p, "map_p_alone": fit.p_alone, "map_score": fit.score}
        tried = {
            words: map_fit(plate, other, expected, FEW_DRAWS).score
            for words, other in other_maps(plate.treatments, shape, maps)
        }
        best = max(tried, key=lambda words: np.nan_to_num(tried[words], nan=-np.inf), default="")
        if best and tried[best] > fit.score + LEAD:
            found[name] |= {"map_other": best, "map_other_score": tried[best]}
    for name, fit in fits.items():
        scores = [item.score for other, item in fits.items() if other != name and np.isfinite(item.score)]
        if scores and float(np.median(scores)) >= PLAIN:
            found[name]["map_p_sure"] = fit.p
    return found
