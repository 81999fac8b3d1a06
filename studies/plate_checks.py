"""How often the checks of stains and plate maps err: rates on simulated plates whose truth is known (decision 0051).

A plate is simulated, its statistics measured, and then delivered rightly and wrongly: in each of the 24 orders of the
cytoplasm's stains, and with maps that are turned, shifted or shuffled. Limits are those of the default suite.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from coda.contracts import STAINS
from coda.contracts.channels import PRESET_ROLES
from coda.quality.fingerprints import against_reference, fingerprints_of
from coda.quality.map_fit import map_columns, other_maps
from coda.quality.stats import QC_PREFIX, field_statistics
from coda.quality.suite import load_suite
from coda.simulation.delivery import rendering_pool
from coda.simulation.design import Design, plan_experiment
from coda.simulation.field import render_field
from coda.simulation.laboratories import find_laboratory

SUITE = "cell-painting-v4"
CYTOPLASM = tuple(name for name in STAINS if PRESET_ROLES[name] == "cytoplasm")
OTHER_LABORATORIES = "a release of {}"
OWN_PLATE = "one earlier plate of the laboratory"

STAIN_DESIGN = Design(sites_per_well=1, field_px=256)
MAP_DESIGN = Design(sites_per_well=1, field_px=128)
EVERY = 4
"""Of the wells, one in so many is measured where stains are compared: nine fields a plate of the usual design."""

SETTINGS: dict[str, tuple[slice, slice]] = {
    "2 plates of a new source": (slice(0, 2), slice(0, 0)),
    "2 plates, 2 earlier ones": (slice(0, 2), slice(2, 4)),
    "4 plates of a new source": (slice(0, 4), slice(0, 0)),
}
"""Setting -> plates of the batch, and earlier ones, of four of a laboratory."""

WHOLE = ("turned by 180 degrees", "shuffled")
"""Wrong maps that are also given to a whole batch."""


def limit(column: str) -> float:
    """Return the largest value of a column that the default suite lets pass."""
    found = [
        float(item.arguments["max_value"]) for item in load_suite(SUITE).expectations
        if item.arguments.get("column") == column
    ]  # fmt: skip
    (value,) = found
    return value


def measured(seed: int, laboratory: str, batch: str, plate: str, design: Design, *, every: int = 1) -> pd.DataFrame:
    """Return one simulated plate as ingest would describe it: a row a field, with QC statistics.

    Args:
        seed: Seed of the experiment.
        laboratory: Built-in laboratory.
        batch: Name of the batch.
        plate: Name of the plate.
        design: Layout and sizes.
        every: Of the wells, one in so many.
    """
    experiment, source = plan_experiment(seed, design), find_laboratory(laboratory)
    pixel_um = source.optics.pixel_size_um * design.binning
    rows = []
    for plan in experiment.imaged_wells()[::every]:
        raw = render_field(seed, source, (batch, plate), plan, experiment.compound(plan.compound), 1, design)
        found = field_statistics(
            dict(zip(STAINS, raw, strict=True)), bit_depth=source.camera.bit_depth, nuclei="DNA"
        )  # fmt: skip
        rows.append(
            {
                "Metadata_Source": laboratory, "Metadata_Batch": batch, "Metadata_Plate": f"{batch}{plate}",
                "Metadata_Well": plan.well, "Metadata_Site": 1, "Metadata_Treatment": plan.treatment,
                "Metadata_pert_type": plan.pert_type, "Metadata_PixelSize_um": pixel_um,
                "height": design.field_px, "width": design.field_px,
                **{f"{QC_PREFIX}{name}": value for name, value in found.items()},
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def renamed(fields: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Return a plate whose stains of the cytoplasm were delivered under each other's names.

    Args:
        fields: The plate with the right names.
        order: The name that each stain of `CYTOPLASM` is given.
    """
    given = dict(zip(CYTOPLASM, order, strict=True))

    def name(column: str) -> str:
        return "_".join(given.get(part, part) for part in column.split("_"))

    return fields.rename(columns={column: name(str(column)) for column in fields if str(column).startswith(QC_PREFIX)})


def stain_cases(seed: int, *, design: Design = STAIN_DESIGN, every: int = EVERY) -> pd.DataFrame:
    """Return the margin of every order of the stains, for plates of one seed beside other laboratories' and their own.

    Returns:
        One row a plate, reference and order: ``reference``, ``plate``, ``order`` ('' for the right one), ``margin``.
    """
    laboratories = ("lab_a", "lab_b", "lab_c", "lab_d")
    plates = {
        (name, batch): measured(seed, name, batch, "p1", design, every=every)
        for name in laboratories
        for batch in ("b1", "b2")
    }
    rows = []
    for reference, known, plate in _compared(plates):
        prints = fingerprints_of(known)
        if prints is None:
            continue
        for order in permutations(CYTOPLASM):
            wrong = [f"{right}-{given}" for right, given in zip(CYTOPLASM, order, strict=True) if right != given]
            found = against_reference(renamed(plates[plate], order), PRESET_ROLES, prints)
            rows.append((reference, "/".join(plate), " ".join(wrong), float(str(found["stains_margin"]))))
    return pd.DataFrame(rows, columns=["reference", "plate", "order", "margin"]).assign(seed=seed)


def _compared(
    plates: dict[tuple[str, str], pd.DataFrame],
) -> Iterator[tuple[str, list[pd.DataFrame], tuple[str, str]]]:
    for name in ("lab_a", "lab_b", "lab_c"):
        known = [table for (laboratory, _), table in plates.items() if laboratory == name]
        for plate in plates:
            if plate[0] != name:
                yield OTHER_LABORATORIES.format(name), known, plate
    for laboratory, batch in plates:
        if batch == "b2" and laboratory != "lab_a":
            yield OWN_PLATE, [plates[laboratory, "b1"]], (laboratory, "b2")


def stain_rates(cases: pd.DataFrame) -> pd.DataFrame:
    """Return how often plates are refused and warned of, by reference: right names, and each of the 23 wrong orders."""
    refused, warned = limit("stains_margin_sure"), limit("stains_margin")
    rows = []
    for reference, own in cases.groupby("reference", sort=False):
        right, wrong = own[own["order"] == ""]["margin"], own[own["order"] != ""]["margin"]
        rows.append(
            {
                "reference": reference, "plates": len(right), "right refused": int((right > refused).sum()),
                "right warned of": int(((right > warned) & (right <= refused)).sum()),
                "wrong refused": float((wrong > refused).mean()),
                "refused or warned of": float((wrong > warned).mean()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def map_cases(
    seed: int,
    *,
    design: Design = MAP_DESIGN,
    laboratories: Sequence[str] = ("lab_b", "lab_c"),
    settings: Sequence[str] = tuple(SETTINGS),
) -> pd.DataFrame:
    """Return what the check of plate maps says of right and wrong maps, for batches of one seed.

    Args:
        seed: Seed of the experiment.
        design: Layout and sizes.
        laboratories: Whose plates.
        settings: Of `SETTINGS`.

    Returns:
        One row a laboratory, setting and map: ``setting``, ``map``, ``refused``, ``warned`` (of a plate that is not
        refused), and the same of the batch's other plates, whose maps are right: ``others``, ``others_refused``.
    """
    draw, rows = np.random.default_rng(seed), []
    for laboratory in laboratories:
        plates = [
            measured(seed, laboratory, batch, plate, design) for batch in ("b1", "b2") for plate in ("p1", "p2")
        ]  # fmt: skip
        first = plates[0]
        right = dict(zip(first["Metadata_Well"], first["Metadata_Treatment"], strict=True))
        shuffled = dict(zip(right, draw.permutation(list(right.values())).tolist(), strict=True))
        maps = {"right": right, "shuffled": shuffled, **dict(other_maps(right, design.shape, {}))}
        for setting in settings:
            now, before = SETTINGS[setting]
            batch, earlier = plates[now], plates[before]
            for name, given in maps.items():
                for whole in (False, True) if name in WHOLE else (False,):
                    tables = [_declared(table, given) if whole or n == 0 else table for n, table in enumerate(batch)]
                    found = map_columns(pd.concat(tables, ignore_index=True), earlier, design.shape)
                    states = [_judged(found[str(table["Metadata_Plate"].iloc[0])]) for table in batch]
                    others = [] if whole else [state == "refused" for state in states[1:]]
                    rows.append(
                        (setting, name + (", all plates" if whole else ""), states[0] == "refused",
                         states[0] == "warned", len(others), sum(others))
                    )  # fmt: skip
    columns = ["setting", "map", "refused", "warned", "others", "others_refused"]
    return pd.DataFrame(rows, columns=columns).assign(seed=seed)


def _declared(table: pd.DataFrame, given: dict[str, str]) -> pd.DataFrame:
    return table.assign(Metadata_Treatment=table["Metadata_Well"].map(given)).dropna(subset=["Metadata_Treatment"])


def _judged(found: dict[str, object]) -> str:
    value = {name: float(str(found[name])) for name in ("map_other_score", "map_p_sure", "map_p", "map_p_alone")}
    if any(value[name] > limit(name) for name in ("map_other_score", "map_p_sure")):
        return "refused"
    return "warned" if any(value[name] > limit(name) for name in ("map_p", "map_p_alone")) else "accepted"


def map_rates(cases: pd.DataFrame) -> pd.DataFrame:
    """Return how often a plate is refused and warned of, by setting and map."""
    grouped = cases.groupby(["setting", "map"], sort=False)
    return grouped.agg(
        plates=("refused", "size"), refused=("refused", "mean"), warned=("warned", "mean"),
        others=("others", "sum"), others_refused=("others_refused", "sum"),
    ).reset_index()  # fmt: skip


def over_seeds(
    cases: Callable[[int], pd.DataFrame], seeds: Sequence[int], *, processes: int, report: Callable[[int], None]
) -> pd.DataFrame:
    """Return the cases of all seeds, in their order.

    Args:
        cases: `stain_cases` or `map_cases`.
        seeds: Seeds; see docs/protocol.md for what each may be used for.
        processes: Seeds at the same time.
        report: Called with each seed that is done.
    """
    tables = []
    with rendering_pool(processes) as pool:
        for seed, table in zip(seeds, pool.map(cases, seeds) if pool else map(cases, seeds), strict=True):
            report(seed)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)
