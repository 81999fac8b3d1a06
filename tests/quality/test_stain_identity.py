"""Swapped stains: caught on simulated plates of every laboratory, and never seen where there are none."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from real_cells import quarters, real_fields, table_of

from coda.config import Params
from coda.contracts import STAINS
from coda.contracts.channels import PRESET_ROLES
from coda.local.offline import offline_settings
from coda.quality.identity import stain_identity, stain_match
from coda.quality.suite import load_suite
from coda.simulation import Design, break_batch, find_laboratory, plan_experiment, simulate_batch
from coda.simulation.field import render_field
from coda.steps.ingest import ingest
from coda.steps.validate import validate, verdict

LIMIT = -0.06
"""The suite's critical limit on the margin."""


def swapped(fields: pd.DataFrame, other: str) -> pd.DataFrame:
    """Return the statistics as they would be if DNA and another stain had each other's names."""
    ends = {"_DNA": f"_{other}", f"_{other}": "_DNA"}

    def rename(name: str) -> str:
        return next((name.removesuffix(end) + new for end, new in ends.items() if name.endswith(end)), name)

    return fields.rename(columns=rename)


@pytest.mark.parametrize("laboratory", ["lab_a", "lab_b", "lab_c"])
@pytest.mark.parametrize("seed", [0, 1])
def test_simulated_plates(laboratory: str, seed: int) -> None:
    design = Design(sites_per_well=1)
    experiment = plan_experiment(seed, design)
    source = find_laboratory(laboratory)
    fields = [
        dict(
            zip(
                STAINS,
                render_field(seed, source, ("b1", "p1"), plan, experiment.compound(plan.compound), 1, design),
                strict=True,
            )
        )
        for plan in experiment.imaged_wells()[::2]
    ]
    bits = source.described(design.binning).bit_depth
    table = table_of(fields, bits)
    right = stain_identity(table, STAINS, PRESET_ROLES)
    assert right["nuclei_in"] == "DNA"
    assert right["dna_margin"] > LIMIT
    wrong = stain_identity(swapped(table, "AGP"), STAINS, PRESET_ROLES)
    assert wrong["nuclei_in"] == "AGP"
    assert wrong["dna_margin"] < LIMIT


def critical_limits_broken(fields: pd.DataFrame) -> list[str]:
    """Hold one field against the shipped suite's critical limits on stains, as if it were a plate."""
    broken = []
    for item in load_suite("cell-painting-v3").expectations:
        if item.table == "stains" and item.severity == "critical":
            statistic = item.arguments["column"].rsplit("_", 1)[0]
            values = fields.filter(regex=f"^QC_{statistic}_").to_numpy()
            if statistic == "match":
                channels = tuple(name.removeprefix("QC_focus_") for name in fields if name.startswith("QC_focus_"))
                table = fields.assign(Metadata_pert_type="trt")
                values = np.array([stain_match(table, stain, channels, PRESET_ROLES)[0] for stain in channels])
            low, high = item.arguments.get("min_value", -np.inf), item.arguments.get("max_value", np.inf)
            broken += [item.name] if not ((values >= low) & (values <= high)).all() else []
    return broken


def test_real_fields_of_four_cell_types(shared_data: Path) -> None:
    seen = 0
    for name, bits, raw in real_fields(shared_data / "images"):
        channels = tuple(raw)
        fields = table_of([raw], bits)
        right = stain_identity(fields, channels, PRESET_ROLES)
        assert right["nuclei_in"] == "DNA", name
        assert not critical_limits_broken(fields), name
        for other in channels[1:]:
            wrong = stain_identity(swapped(fields, other), channels, PRESET_ROLES)
            assert wrong["dna_margin"] < LIMIT, (name, other)
        seen += 1
    assert seen == 33


def test_stain_of_another_plate_is_found_and_no_unmodified_field_is_accused(shared_data: Path) -> None:
    """Quarters of a real field stand for the fields of a plate; decision 0049 states the counts."""
    whole = [(name, bits, raw) for name, bits, raw in real_fields(shared_data / "images") if len(raw) == 5]
    right, wrong = [], []
    for (name, bits, raw), (_, _, other) in zip(whole, whole[2:] + whole[:2], strict=True):
        plate = table_of(list(quarters(raw)), bits).assign(Metadata_pert_type="trt")
        right += [(name, stain, stain_match(plate, stain, tuple(raw), PRESET_ROLES)[1]) for stain in raw]
        for stain in raw:
            planted = [
                part | {stain: foreign[stain]} for part, foreign in zip(quarters(raw), quarters(other), strict=True)
            ]
            table = table_of(planted, bits).assign(Metadata_pert_type="trt")
            wrong.append((name, stain, stain_match(table, stain, tuple(raw), PRESET_ROLES)[1]))
    assert len(right) == len(wrong) == 80
    assert [item for item in right if item[2] < 3] == []
    assert sum(item[2] < 3 for item in wrong) == 77  # as decision 0049 says


def test_without_a_dna_stain_nothing_is_claimed() -> None:
    noise = np.random.default_rng(0).poisson(500, (64, 64)).astype(np.uint16)
    alone = stain_identity(table_of([{"DNA": noise}], 16), ("DNA",), PRESET_ROLES)
    without = stain_identity(table_of([{"ER": noise, "AGP": noise}], 16), ("ER", "AGP"), PRESET_ROLES)
    assert alone["nuclei_in"] == without["nuclei_in"] == ""
    assert np.isnan(alone["dna_margin"])


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("landing")
    design = Design(
        mechanisms=2, compounds_per_mechanism=2, negcon_wells=4, poscon_wells=2, plate_wells=24, sites_per_well=2
    )
    simulate_batch(plan_experiment(0, design), "lab_b", "b1", ["p1", "p2", "p3"], out, workers=1)
    return out


@pytest.mark.parametrize(
    ("kinds", "outcome", "words"),
    [
        (["swapped_stains"], "accepted", ["Plate p1", "named AGP", "load_data"]),
        (["missing_plate", "swapped_stains", "corrupt_tiff"], "refused", ["2 of 3 plates", "Plate p1", "Plate p3"]),
    ],
)
def test_a_broken_delivery_through_ingest_and_validation(
    kinds: list[str], outcome: str, words: list[str], delivery: Path, tmp_path: Path, demo_params: Params
) -> None:
    shutil.copytree(delivery, tmp_path / "landing")
    folder = tmp_path / "landing" / "lab_b" / "b1"
    break_batch(folder, kinds, 0)
    settings = offline_settings(tmp_path)
    params = demo_params.model_copy(update={"ingest": demo_params.ingest.model_copy(update={"workers": 1})})
    ingest([str(folder / "manifest.json")], tmp_path / "ds", params=params, settings=settings)
    report = validate(tmp_path / "ds", params=params, settings=settings)[0]
    assert verdict(tmp_path / "ds") == outcome
    assert "p1" in report.plates_refused
    assert all(word in report.sentence for word in words), report.sentence
