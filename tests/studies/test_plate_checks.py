"""Rates of the checks of stains and plate maps: small plates, and what is counted."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from coda.quality.fingerprints import fingerprints_of
from coda.simulation.design import Design
from studies.plate_checks import (
    CYTOPLASM,
    SETTINGS,
    limit,
    map_cases,
    map_rates,
    measured,
    over_seeds,
    renamed,
    stain_cases,
    stain_rates,
)

SMALL = Design(sites_per_well=1, field_px=96, mechanisms=4, compounds_per_mechanism=2, negcon_wells=4, plate_wells=24)


@pytest.fixture(scope="module")
def plate():
    return measured(3, "lab_a", "b1", "p1", SMALL, every=3)


def test_a_plate_that_is_renamed_and_named_back_is_itself(plate):
    moved = ("AGP", "ER", "Mito", "RNA")
    back = dict(zip(moved, CYTOPLASM, strict=True))
    again = renamed(renamed(plate, moved), tuple(back[name] for name in CYTOPLASM))
    pd.testing.assert_frame_equal(again, plate)
    wrong = renamed(plate, moved)
    for right, given in zip(CYTOPLASM, moved, strict=True):
        np.testing.assert_array_equal(wrong[f"QC_focus_{given}"], plate[f"QC_focus_{right}"])
    assert fingerprints_of([wrong]).statistics != fingerprints_of([plate]).statistics


def test_limits_are_those_of_the_suite():
    assert [limit(name) for name in ("stains_margin_sure", "stains_margin")] == [0.2, 0.05]
    assert [limit(name) for name in ("map_other_score", "map_p_sure", "map_p", "map_p_alone")] == [5, 0.01, 0.05, 0.05]


def test_cases_of_every_reference_and_order_and_their_rates(monkeypatch):
    done = []
    cases = over_seeds(_stains, [3], processes=1, report=done.append)
    assert done == [3]
    assert len(cases) == (3 * 6 + 3) * 24
    assert (cases.groupby(["reference", "plate"])["margin"].min() == 0).all()  # one order is the best
    made = pd.DataFrame(
        {"reference": "r", "plate": ["a", "a", "b", "b"], "order": ["", "ER-RNA", "", "ER-RNA"],
         "margin": [0.1, 0.3, 0.0, 0.15]}
    )  # fmt: skip
    (row,) = stain_rates(made).to_dict("records")
    assert row == {
        "reference": "r", "plates": 2, "right refused": 0, "right warned of": 1, "wrong refused": 0.5,
        "refused or warned of": 1.0,
    }  # fmt: skip


def _stains(seed):
    return stain_cases(seed, design=SMALL, every=4)


def test_maps_are_tried_rightly_and_wrongly():
    assert list(SETTINGS) == ["2 plates of a new source", "2 plates, 2 earlier ones", "4 plates of a new source"]
    cases = map_cases(3, design=SMALL, laboratories=["lab_b"], settings=["2 plates, 2 earlier ones"])
    assert len(cases) == 7 + 2
    rates = map_rates(cases).set_index(["setting", "map"])
    assert rates.loc[("2 plates, 2 earlier ones", "turned by 180 degrees"), "others"] == 1
    assert rates.loc[("2 plates, 2 earlier ones", "shuffled, all plates"), "others"] == 0
    assert not (cases["refused"] & cases["warned"]).any()
    assert rates.loc[("2 plates, 2 earlier ones", "right"), "refused"] == 0


def test_the_command_says_what_it_measures():
    from coda.cli.benchmark import app

    found = CliRunner().invoke(app, ["plate-checks", "--help"])
    assert found.exit_code == 0
    assert "wrong plate maps" in " ".join(found.output.split())
