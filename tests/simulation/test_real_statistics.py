"""How far simulated fields are from real ones, statistic by statistic, as decision 0052 lists it.

Real: RxRx1's untreated wells of four cell types (512 px, 0.65 um), and a JUMP pilot field in quarters (0.598 um).
Simulated: DMSO wells of two batches of each laboratory, 512 px at binning 1, seeds 3 and 4.
"""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from real_cells import quarters, real_fields, table_of

from coda.contracts import STAINS
from coda.simulation import LABORATORIES, Design, plan_experiment
from coda.simulation.field import render_field

RXRX1_UM, JUMP_UM = 0.65, 0.598
CYTOPLASM = tuple(stain for stain in STAINS if stain != "DNA")
KINDS = ("contrast", "snr", "focus", "foreground", "separability", "compactness")
PAIRS = ("ER and RNA", "AGP with others", "DNA with others", "other stains")


def summary(fields: list[dict[str, np.ndarray]], bit_depth: int, pixel_um: float) -> pd.Series:
    """Return the medians over fields of each statistic, those of the cytoplasm's stains together."""
    found = table_of(fields, bit_depth).median()
    numbers = {}
    for kind in KINDS:
        own = {stain: found.get(f"QC_{kind}_{stain}", np.nan) for stain in STAINS}
        numbers[f"{kind}, DNA"] = own.pop("DNA")
        numbers[f"{kind}, others"] = float(np.nanmedian(list(own.values())))
    pairs: dict[str, list[float]] = {name: [] for name in PAIRS}
    for a, b in combinations(STAINS, 2):
        value = found.get(f"QC_corr_{a}_{b}", found.get(f"QC_corr_{b}_{a}", np.nan))
        names = {a, b}
        place = 0 if names == {"ER", "RNA"} else 2 if "DNA" in names else 1 if "AGP" in names else 3
        pairs[PAIRS[place]].append(value)
    for name, values in pairs.items():
        numbers[f"correlation, {name}"] = float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan
    height, width = fields[0]["DNA"].shape
    numbers["nuclei in a square mm"] = found["QC_cells_DNA"] / (height * width * pixel_um**2 / 1e6)
    return pd.Series(numbers)


def simulated(name: str) -> pd.Series:
    laboratory, design = LABORATORIES[name], Design(field_px=512, binning=1, sites_per_well=1)
    fields = []
    for seed in (3, 4):
        experiment = plan_experiment(seed, design)
        wells = [well for well in experiment.layout if well.pert_type == "negcon"]
        for batch in ("b1", "b2"):
            for well in wells[:2]:
                compound = experiment.compound("DMSO")
                pixels = render_field(seed, laboratory, (batch, "p1"), well, compound, 1, design)
                fields.append(dict(zip(STAINS, pixels, strict=True)))
    return summary(fields, laboratory.camera.bit_depth, laboratory.optics.pixel_size_um)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> pd.DataFrame:
    sets: dict[str, list[dict[str, np.ndarray]]] = {}
    for name, _, raw in real_fields(shared_data / "images"):
        parts = quarters(raw) if name == "JUMP" else [raw]
        sets.setdefault(name.partition("-")[0], []).extend(parts)
    return pd.DataFrame(
        {
            name: summary(
                [field for field in fields if len(field) == max(map(len, fields))],
                16 if name == "JUMP" else 8,
                JUMP_UM if name == "JUMP" else RXRX1_UM,
            )
            for name, fields in sets.items()
        }
    )


def told(real: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """Return what the page's table says: medians, and how far the laboratories lie outside of the real range."""
    low, high = real.min(axis=1), real.max(axis=1)
    outside = {}
    for name, own in made.iterrows():
        # amounts of several orders of magnitude are as far apart as their logarithms
        scale = np.log if re.match("snr|nuclei", str(name)) else np.asarray
        least, most, each = scale(low[name]), scale(high[name]), scale(own.to_numpy())
        outside[name] = np.median(np.maximum(np.maximum(least - each, each - most), 0)) / (most - least)
    return pd.DataFrame({"U2OS": real["U2OS"], "low": low, "high": high, **made, "off": pd.Series(outside)})


def test_the_page_says_how_far_off_each_statistic_is(root, real):
    made = pd.DataFrame({name: simulated(name) for name in LABORATORIES})
    table = told(real, made)
    page = (root / "docs" / "decisions" / "0052-shifts-by-kind.md").read_text(encoding="utf-8")
    wrong = {}
    for name, numbers in table.iterrows():
        row = re.search(rf"^\| {re.escape(str(name))} \|(.*)\|$", page, re.MULTILINE)
        written = [float(cell.replace("–", "nan")) for cell in row[1].split("|")] if row else []
        # rounded to what is printed
        if len(written) != len(numbers) or not np.allclose(written, numbers, rtol=0.03, atol=0.006, equal_nan=True):
            wrong[name] = " | ".join("–" if np.isnan(value) else f"{value:.3g}" for value in numbers)
    assert wrong == {}, "\n".join(f"| {name} | {row} |" for name, row in wrong.items())
