"""Shift strength: a laboratory between two others, exact at its ends, monotone, and always a possible one."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.errors import ConfigError
from coda.simulation import Design, plan_experiment
from coda.simulation.field import render_field
from coda.simulation.laboratories import LABORATORIES, Laboratory
from coda.simulation.shifts import STRONGEST_SHIFT, shifted

NAMES = sorted(LABORATORIES)
LABELS = ("name", "instrument", "modality", "objective", "file_names", "channel_numbers", "compression")


def numbers(laboratory: Laboratory) -> dict[str, float]:
    """Every number of a laboratory by its path; leaks and effects that are not there are 0."""

    def walk(path: str, value) -> Iterator[tuple[str, float]]:
        if isinstance(value, dict):
            for key, part in value.items():
                yield from walk(f"{path}.{key}", part)
        elif path.endswith("crosstalk"):
            yield from ((f"{path}.{origin}.{into}", share) for origin, into, share in value)
        elif isinstance(value, tuple):
            yield from ((f"{path}.{place}", part) for place, part in enumerate(value))
        else:
            yield path, value

    return dict(walk("", laboratory.model_dump(exclude=set(LABELS))))


@pytest.mark.parametrize("base", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_the_ends_are_exact(base, target):
    old, new = LABORATORIES[base], LABORATORIES[target]
    assert shifted(old, new, 1.0) == new
    assert numbers(shifted(old, new, 0.0)) == numbers(old)


@given(
    base=st.sampled_from(NAMES), target=st.sampled_from(NAMES), shares=st.tuples(*[st.floats(0, STRONGEST_SHIFT)] * 3)
)
def test_every_number_moves_one_way_only(base, target, shares):
    old, new = LABORATORIES[base], LABORATORIES[target]
    direction = {key: numbers(new).get(key, 0.0) - numbers(old).get(key, 0.0) for key in numbers(old) | numbers(new)}
    steps = [numbers(shifted(old, new, share)) for share in sorted(shares)]
    for key, way in direction.items():
        values = [step.get(key, 0.0) for step in steps]
        moved = [(b - a) * math.copysign(1, way) for a, b in itertools.pairwise(values)]
        assert all(change >= -1e-9 * max(map(abs, values)) for change in moved), (key, values)
        assert way or all(value == values[0] for value in values), key


@given(base=st.sampled_from(NAMES), target=st.sampled_from(NAMES), share=st.floats(0, STRONGEST_SHIFT))
def test_every_share_gives_a_valid_laboratory_with_the_targets_labels(base, target, share):
    result = shifted(LABORATORIES[base], LABORATORIES[target], share)
    assert Laboratory.model_validate(result.model_dump()) == result
    assert all(getattr(result, name) == getattr(LABORATORIES[target], name) for name in LABELS)
    assert all(math.isfinite(value) for value in numbers(result).values())


def test_amounts_are_blended_as_logarithms_and_effects_linearly():
    a, b = LABORATORIES["lab_a"], LABORATORIES["lab_b"]
    half, far = shifted(a, b, 0.5), shifted(a, b, 1.3)
    assert half.optics.haze == pytest.approx(math.sqrt(a.optics.haze * b.optics.haze))
    assert far.camera.photons[1] == pytest.approx(
        a.camera.photons[1] * (b.camera.photons[1] / a.camera.photons[1]) ** 1.3
    )
    assert half.biology["fibres"] == pytest.approx(0.25)
    assert far.biology["mito_perinuclear"] == pytest.approx(-0.39)
    leaks = {pair[:2]: pair[2] for pair in half.optics.crosstalk}
    assert leaks["AGP", "RNA"] == pytest.approx(0.03), "lab_a has none, so it grows from 0"


@pytest.mark.parametrize("share", [-0.1, STRONGEST_SHIFT + 0.1, math.nan, math.inf])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match="blended"):
        shifted(LABORATORIES["lab_a"], LABORATORIES["lab_b"], share)


def test_a_stronger_shift_moves_the_pictures_further():
    design = Design(
        mechanisms=2, compounds_per_mechanism=1, negcon_wells=1, poscon_wells=0, plate_wells=24, field_px=48
    )
    experiment = plan_experiment(7, design)
    plan = experiment.imaged_wells()[0]
    base, target = LABORATORIES["lab_a"], LABORATORIES["lab_c"]

    def picture(laboratory: Laboratory) -> np.ndarray:
        names = ("batch_1", "plate_1")
        field = render_field(7, laboratory, names, plan, experiment.compound(plan.compound), 1, design).astype(float)
        return np.log(field.mean(axis=(1, 2)))

    start, end = picture(shifted(base, target, 0.0)), picture(target)
    distances = [float(np.abs(picture(shifted(base, target, share)) - start).mean()) for share in (0.25, 0.5, 1.0, 1.3)]
    assert distances == sorted(distances)
    assert np.array_equal(picture(shifted(base, target, 1.0)), end)
