"""Stains of the cytoplasm under each other's names: the planted order is found, and right plates are left alone."""

from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_cells import quarters, real_fields, table_of

from coda.contracts import STAINS
from coda.contracts.channels import PRESET_ROLES
from coda.contracts.fingerprints import StainFingerprints
from coda.quality.fingerprints import ALONE, against_reference, fingerprints_of
from coda.quality.suite import load_suite
from coda.simulation import Design, find_laboratory, plan_experiment
from coda.simulation.field import render_field

CYTOPLASM = STAINS[1:]
REFUSED = next(
    item.arguments["max_value"]
    for item in load_suite("cell-painting-v4").expectations
    if item.name == "stains_are_in_their_order"
)


def named(table: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Give the pictures of each stain of the cytoplasm the name in the same place of `order`."""
    new = {"DNA": "DNA", **dict(zip(CYTOPLASM, order, strict=True))}

    def rename(column: str) -> str:
        kind, *stains = column.removeprefix("QC_").split("_")
        if kind in ("near", "dynamic"):
            kind, stains = f"{kind}_{stains[0]}", stains[1:]
        return "_".join(["QC_" + kind, *(new.get(stain, stain) for stain in stains)])

    return table.rename(columns={name: rename(name) for name in table if name.startswith("QC_")})


def told(order: Sequence[str]) -> set[str]:
    return {
        f"those named {shown} look like {stain}"
        for stain, shown in zip(CYTOPLASM, order, strict=True)
        if stain != shown
    }


def on_a_plate(table: pd.DataFrame, name: str = "p1") -> pd.DataFrame:
    return table.assign(
        Metadata_Source="lab", Metadata_Batch="b", Metadata_Plate=name, Metadata_pert_type="trt",
        height=256, width=256, Metadata_PixelSize_um=1.1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made_up() -> pd.DataFrame:
    """Fields of stains that differ in every statistic."""
    rng = np.random.default_rng(0)
    centre = {f"QC_{name}_{stain}": rng.normal() for name in ALONE for stain in STAINS}
    pairs = [(a, b) for place, a in enumerate(STAINS) for b in STAINS[place + 1 :]]
    centre |= {f"QC_corr_{a}_{b}": rng.uniform(-0.8, 0.8) for a, b in pairs}
    return on_a_plate(pd.DataFrame([{name: x + rng.normal(0, 0.02) for name, x in centre.items()} for _ in range(12)]))


@given(order=st.permutations(CYTOPLASM))
def test_a_permuted_fingerprint_is_found_as_exactly_that_permutation(made_up: pd.DataFrame, order: list[str]) -> None:
    found = against_reference(named(made_up, order), PRESET_ROLES, fingerprints_of([made_up]))
    assert set(filter(None, str(found["stains_found"]).split(", "))) == told(order)
    assert (found["stains_margin"] == 0) == (list(order) == list(CYTOPLASM))
    assert found["stains_margin"] == found["stains_margin_sure"]
    for stain, shown in zip(CYTOPLASM, order, strict=True):
        assert (f"what FileName_Orig{shown} has into FileName_Orig{stain}" in found["stains_remedy"]) == (
            stain != shown
        )


def test_few_fields_warn_and_what_is_missing_is_not_compared(made_up: pd.DataFrame) -> None:
    reference = fingerprints_of([made_up])
    swapped = named(made_up, ["Mito", "RNA", "AGP", "ER"])
    few = against_reference(swapped.head(3), PRESET_ROLES, reference)
    assert few["stains_margin"] > REFUSED
    assert np.isnan(few["stains_margin_sure"])
    assert against_reference(swapped.head(0), PRESET_ROLES, reference)["stains_compared"] is False
    one = {"DNA": "nuclei", "ER": "cytoplasm", "Brightfield": "transmitted"}
    assert against_reference(made_up, one, reference)["stains_compared"] is False
    assert np.isnan(against_reference(made_up, one, reference)["stains_margin"])
    without = made_up.drop(columns="QC_contrast_ER")
    assert against_reference(without, PRESET_ROLES, reference)["stains_compared"] is False
    assert fingerprints_of([]) is fingerprints_of([made_up.filter(like="Metadata_")]) is None


def test_a_reference_of_some_of_the_stains_compares_these(made_up: pd.DataFrame) -> None:
    three = ("DNA", "ER", "AGP")
    kept = [name for name in made_up if not name.startswith("QC_") or {"RNA", "Mito"}.isdisjoint(name.split("_"))]
    reference = fingerprints_of([made_up[kept]])
    assert reference.channels == three
    found = against_reference(named(made_up, ["AGP", "RNA", "ER", "Mito"]), PRESET_ROLES, reference)
    assert found["stains_found"] == "those named AGP look like ER, those named ER look like AGP"


def test_fingerprints_survive_their_document(made_up: pd.DataFrame, tmp_path: Path) -> None:
    kept = fingerprints_of([made_up, made_up.assign(Metadata_Plate="p2")])
    assert (kept.plates, kept.fields) == (2, 24)
    assert StainFingerprints.read(kept.write(tmp_path / "x.json")) == kept
    assert kept.statistics["focus_ER"].usual == pytest.approx(made_up["QC_focus_ER"].median())


def test_size_and_density_of_cells_are_stated_in_units_of_the_reference(made_up: pd.DataFrame) -> None:
    cells = made_up.assign(QC_cells_DNA=20.0, QC_foreground_DNA=0.1)
    larger = cells.assign(QC_cells_DNA=10.0, Metadata_PixelSize_um=2.2)
    found = against_reference(larger, PRESET_ROLES, fingerprints_of([cells]))
    assert found["nucleus_ratio"] == pytest.approx(8)  # half of the nuclei share the same part of four times the area
    assert found["density_ratio"] == pytest.approx(1 / 8)


def test_simulated_plates_of_other_laboratories() -> None:
    """Decision 0051 has the rates over many seeds: 93 % of wrong orders refused, 99 % refused or warned of."""
    design = Design(sites_per_well=1)
    experiment = plan_experiment(10, design)

    def plate(laboratory: str, batch: str) -> pd.DataFrame:
        source = find_laboratory(laboratory)
        fields = []
        for plan in experiment.imaged_wells()[::4]:
            raw = render_field(10, source, (batch, "p1"), plan, experiment.compound(plan.compound), 1, design)
            fields.append(dict(zip(STAINS, raw, strict=True)))
        return on_a_plate(table_of(fields, source.camera.bit_depth), batch)

    reference = fingerprints_of([plate("lab_a", batch) for batch in ("b1", "b2")])
    orders = [order for order in permutations(CYTOPLASM) if order != CYTOPLASM]
    for laboratory in ("lab_b", "lab_c"):
        own = plate(laboratory, "b1")
        assert against_reference(own, PRESET_ROLES, reference)["stains_margin"] <= REFUSED
        margins = [against_reference(named(own, order), PRESET_ROLES, reference)["stains_margin"] for order in orders]
        assert np.mean(np.array(margins) > REFUSED) > 0.7, laboratory


def test_real_cells_of_one_line_beside_those_of_others(shared_data: Path) -> None:
    """Quarters of a field stand for the fields of a plate; decision 0051 states the counts."""
    plates: dict[str, dict[str, pd.DataFrame]] = {}
    for name, bits, raw in real_fields(shared_data / "images"):
        if len(raw) == 5:
            line, plate = name.split("/")[:2]
            plates.setdefault(line, {})[plate] = on_a_plate(table_of(list(quarters(raw)), bits), plate)
    right, swapped = [], []
    for line, own in plates.items():
        reference = fingerprints_of(list(own.values()))
        for plate in (plate for other, group in plates.items() if other != line for plate in group.values()):
            right.append(against_reference(plate, PRESET_ROLES, reference)["stains_margin"])
            for one, other in combinations(CYTOPLASM, 2):
                swap = {one: other, other: one}
                order = [swap.get(stain, stain) for stain in CYTOPLASM]
                swapped.append(against_reference(named(plate, order), PRESET_ROLES, reference)["stains_margin"])
    assert len(right) == 48
    assert max(right) < 0.05
    assert np.mean(np.array(swapped) > REFUSED) == pytest.approx(0.785, abs=0.01)
