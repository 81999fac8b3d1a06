"""The demo's weekly batches: four steady weeks, and then what its pages are to show."""

from collections import Counter
from itertools import pairwise

import pytest

from coda.local import routine


def classes(experiment):
    return Counter(experiment.compound(well.compound).mechanism for well in experiment.imaged_wells())


def test_the_lamp_is_steady_at_first_and_then_loses_light_faster_and_faster():
    told = [routine.lamp(week) for week in range(1, routine.WEEKS + 1)]
    assert told[: routine.STEADY_WEEKS] == [1.0] * routine.STEADY_WEEKS
    lost = [before - after for before, after in pairwise(told[3:])]
    assert lost == sorted(lost)
    assert 0.5 < told[-1] < 0.8
    before, after = (routine.laboratory(week).camera.photons[0] for week in (1, routine.WEEKS))
    assert after / before == pytest.approx(told[-1])


def test_every_week_has_the_same_wells_until_one_mechanism_is_followed_up():
    first, second, later = (routine.experiment(0, week) for week in (1, routine.FOLLOW_UP_WEEK - 1, routine.WEEKS))
    assert first.layout == second.layout
    assert [well.well for well in first.imaged_wells()] == [well.well for well in later.imaged_wells()]
    assert set(classes(first).values()) == {1, 4 + 4}, "a compound of each mechanism; controls have none"
    assert classes(later)[routine.FOLLOWED_UP] == 1 + len(routine.GIVEN_UP)
    assert not set(routine.GIVEN_UP) & set(classes(later))


def test_one_plate_of_one_week_lacks_its_positive_control():
    plates = ("p1", "p2", "p3", "p4")
    told = {week: routine.dispensed(0, week, plates) for week in range(1, routine.WEEKS + 1)}
    assert [week for week, wrong in told.items() if wrong] == [routine.FAILED_WEEK]
    (control,) = told[routine.FAILED_WEEK]["p3"]
    assert routine.experiment(0, 1).compound(control).pert_type == "poscon"
