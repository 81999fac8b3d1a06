"""Layouts of shifted plates: what is missing, dominant, diluted or in another place, counted by hand."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.simulation import Design, plan_experiment
from coda.simulation.shifted_layouts import laid_out
from coda.simulation.shifts import read_shifts

DESIGN = Design()
seeds = st.integers(0, 1000)


def mechanisms(experiment) -> Counter:
    """Treated wells of each mechanism."""
    return Counter(
        experiment.compound(well.compound).mechanism for well in experiment.layout if well.pert_type == "trt"
    )


def content(experiment) -> list[tuple[str, str, float | None]]:
    return sorted((well.pert_type, well.treatment, well.dose_um or 0.0) for well in experiment.layout)


@pytest.mark.parametrize(
    "kinds", ["missing:0", "dominant:0", "dominant:0.1", "doses:0", "moved:0", "all:1", "optical:2"]
)
def test_nothing_asked_for_is_the_planned_experiment(kinds):
    planned = plan_experiment(3, DESIGN)
    assert laid_out(planned, read_shifts(kinds)) == planned


@given(seed=seeds, share=st.floats(0, 1))
def test_a_share_of_the_mechanisms_is_missing_and_controls_stay(seed, share):
    planned = plan_experiment(seed, DESIGN)
    found = laid_out(planned, read_shifts(f"missing:{share:.6f}"))
    left = mechanisms(found)
    missing = min(round(float(f"{share:.6f}") * 8), 7)
    assert len(left) == 8 - missing
    assert sum(left.values()) == 24
    assert max(left.values()) - min(left.values()) <= 3, "wells of one mechanism go to one other"
    for before, after in zip(planned.layout, found.layout, strict=True):
        assert after == before or (after.pert_type, after.dose_um) == (before.pert_type, before.dose_um) == ("trt", 5.0)


@given(seed=seeds, share=st.floats(0, 1))
def test_one_mechanism_has_its_share_and_the_others_stay_alike(seed, share):
    found = mechanisms(laid_out(plan_experiment(seed, DESIGN), read_shifts(f"dominant:{share:.6f}")))
    most = max(found.values())
    assert sum(found.values()) == 24
    assert most == 3 or abs(most - float(f"{share:.6f}") * 24) <= 0.5
    others = sorted(found.values())[:-1]
    assert not others or most == 3 or max(others) - min(others) <= 1


@given(seed=seeds)
def test_two_classes_at_75_to_25_as_in_the_protocol(seed):
    found = laid_out(plan_experiment(seed, DESIGN), read_shifts("missing:0.75+dominant:0.75"))
    assert sorted(mechanisms(found).values()) == [6, 18]
    for well in found.layout:
        if well.pert_type == "trt":
            assert well.treatment == f"{well.compound}_5uM"


@given(seed=seeds, small=st.floats(0, 1), large=st.floats(0, 1))
def test_what_is_missing_or_taken_stays_so_at_a_greater_strength(seed, small, large):
    planned = plan_experiment(seed, DESIGN)
    small, large = sorted((small, large))
    for kind in ("missing", "dominant"):
        less, more = (laid_out(planned, read_shifts(f"{kind}:{share:.6f}")) for share in (small, large))
        changed = [
            {well.well for well, usual in zip(it.layout, planned.layout, strict=True) if well != usual}
            for it in (less, more)
        ]
        assert changed[0] <= changed[1]


def test_doses_are_less_by_powers_of_ten_and_names_say_so():
    planned = plan_experiment(3, DESIGN)
    found = laid_out(planned, read_shifts("doses:1"))
    for before, after in zip(planned.layout, found.layout, strict=True):
        if before.pert_type == "trt":
            assert (before.dose_um, after.dose_um) == (5.0, 0.5)
            assert after.treatment == f"{before.compound}_0.5uM"
        else:
            assert after == before


@given(seed=seeds, share=st.floats(0, 1))
def test_moved_wells_trade_their_contents(seed, share):
    planned = plan_experiment(seed, DESIGN)
    found = laid_out(planned, read_shifts(f"moved:{share:.6f}"))
    assert content(found) == content(planned)
    assert [(w.well, w.row, w.column) for w in found.layout] == [(w.well, w.row, w.column) for w in planned.layout]
    changed = sum(after != before for before, after in zip(planned.layout, found.layout, strict=True))
    assert changed <= round(float(f"{share:.6f}") * 48)


def test_every_laboratory_and_run_has_the_same_layout():
    planned = plan_experiment(5, DESIGN)
    kinds = read_shifts("missing:0.5+dominant:0.5+moved:1+doses:1")
    assert laid_out(planned, kinds) == laid_out(planned, kinds)
