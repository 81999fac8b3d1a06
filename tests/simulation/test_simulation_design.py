"""Compounds, doses and layout."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.errors import ConfigError
from coda.simulation import MECHANISMS, TRAITS, Design, find_laboratory, plan_experiment
from coda.simulation.nuisance import draw_batch, draw_plate, draw_well


@given(seed=st.integers(0, 2**31), wells=st.sampled_from([48, 96, 384]), doses=st.sampled_from([(5.0,), (1.0, 10.0)]))
@settings(max_examples=25, deadline=None)
def test_every_treatment_has_its_wells_and_the_names_tell_nothing(seed, wells, doses):
    design = Design(plate_wells=wells, doses_um=doses, compounds_per_mechanism=2, mechanisms=8)
    if 16 * len(doses) + 10 > wells:
        return
    experiment = plan_experiment(seed, design)
    assert plan_experiment(seed, design) == experiment
    assert [plan.well for plan in experiment.layout] == sorted(plan.well for plan in experiment.layout)
    assert len(experiment.layout) == wells
    treated = [plan for plan in experiment.layout if plan.pert_type == "trt"]
    assert len({plan.treatment for plan in treated}) == len(treated) == 16 * len(doses)
    assert sum(plan.pert_type == "negcon" for plan in experiment.layout) == 8
    truth = [compound.mechanism for compound in experiment.compounds if compound.pert_type == "trt"]
    assert sorted(truth) == sorted(list(MECHANISMS)[:8] * 2)


def test_inner_wells_are_used_first():
    layout = plan_experiment(3, Design()).layout
    inner = [plan for plan in layout if 0 < plan.row < 5 and 0 < plan.column < 7]
    assert len(inner) == 24
    assert all(plan.pert_type != "empty" for plan in inner)


def test_a_design_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"found 58 wells for 48 compounds.*at most 48 wells"):
        plan_experiment(0, Design(compounds_per_mechanism=6))
    with pytest.raises(ConfigError, match="seed: found -1"):
        plan_experiment(-1, Design())


def test_the_effect_grows_with_the_dose_to_the_full_strength():
    compound = next(c for c in plan_experiment(0, Design()).compounds if c.pert_type == "trt")
    sizes = [np.linalg.norm(compound.effects(dose)) for dose in (0.0, 0.1, compound.ec50_um, 5.0, 1e6)]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    assert sizes[2] == pytest.approx(sizes[4] / 2, rel=1e-3)


def test_compounds_of_one_mechanism_are_alike_and_not_equal():
    experiment = plan_experiment(0, Design())
    vectors: dict[str, list[np.ndarray]] = {}
    for compound in experiment.compounds:
        if compound.mechanism:
            vector = compound.effects(5.0) / [trait.step for trait in TRAITS]
            vectors.setdefault(compound.mechanism, []).append(vector / np.linalg.norm(vector))
    within = [a @ b for same in vectors.values() for a in same for b in same if a is not b]
    between = [
        a @ b for m, same in vectors.items() for n, other in vectors.items() if m < n for a in same for b in other
    ]
    assert 0.6 < np.mean(within) < 0.999
    assert np.mean(within) > np.mean(between) + 0.4


def test_controls_have_no_effect_or_a_strong_one():
    experiment = plan_experiment(0, Design())
    assert not experiment.compound("DMSO").effects(0.0).any()
    poscon = next(compound for compound in experiment.compounds if compound.pert_type == "poscon")
    assert np.abs(poscon.effects(5.0)).max() > 1


def test_plates_of_a_batch_are_more_alike_than_batches():
    laboratory, design = find_laboratory("lab_a"), Design()
    staining = np.array(
        [
            [draw_plate(0, laboratory, f"b{batch}", f"p{plate}", design).log_staining for plate in range(20)]
            for batch in range(20)
        ]
    )
    within, between = staining.std(axis=1).mean(), staining.mean(axis=1).std()
    assert within == pytest.approx(laboratory.variation.plate_staining, rel=0.1)
    assert between == pytest.approx(laboratory.variation.batch_staining, rel=0.25)


def test_edge_wells_lose_cells_and_batch_strength_0_switches_all_nuisance_off():
    experiment = plan_experiment(0, Design())
    corner, inner = experiment.layout[0], next(w for w in experiment.layout if w.well == "C04")
    laboratory = find_laboratory("lab_a")
    lost = []
    for plate in range(60):
        names = ("b", f"p{plate}")
        outside = draw_well(0, laboratory, names, corner, experiment.design)
        lost.append(outside.log_density - draw_well(0, laboratory, names, inner, experiment.design).log_density)
    assert np.mean(lost) == pytest.approx(-laboratory.variation.edge_effect * np.sqrt(2 / np.pi), abs=0.04)
    calm = Design(batch_strength=0.0)
    one, other = (draw_batch(0, laboratory, name, calm) for name in ("b1", "b2"))
    assert not one.biology.any()
    assert (one.log_staining == other.log_staining).all()
    assert one.focus_um == 0


def test_background_differs_from_well_to_well_where_a_laboratory_has_that_and_no_other_draw_with_it():
    layout, design = plan_experiment(0, Design()).layout, Design()
    uneven = find_laboratory("lab_e")
    even = uneven.model_copy(update={"variation": uneven.variation.model_copy(update={"well_background": 0.0})})
    names = [(f"b{batch}", "p") for batch in range(10)]
    apart = []
    for batch, plan in ((batch, plan) for batch in names for plan in layout):
        one, other = (draw_well(0, laboratory, batch, plan, design) for laboratory in (uneven, even))
        apart.append(one.log_background - other.log_background)
        assert other.log_background == draw_plate(0, even, *batch, design).log_background
        assert replace(one, log_background=0.0).described() == replace(other, log_background=0.0).described()
    assert np.std(apart) == pytest.approx(0.5, rel=0.1)
    assert np.mean(apart) == pytest.approx(0, abs=0.1)
