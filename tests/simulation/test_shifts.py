"""Shifts by kind: each moves its own parameters and nothing else, by as much as its strength says."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.errors import ConfigError
from coda.simulation import LABORATORIES, Laboratory
from coda.simulation.field import render_field
from coda.simulation.laboratories import Camera, Optics, Variation
from coda.simulation.shifts import LABELS, PARTS, Shift, kind_of, name_of, read_shifts, shifted, shifted_by_kind

NAMES = sorted(LABORATORIES)
KINDS = sorted(PARTS)
LEAVES = [
    *(f"optics.{name}" for name in Optics.model_fields),
    *(f"camera.{name}" for name in Camera.model_fields),
    *(f"variation.{name}" for name in Variation.model_fields),
    *(name for name in Laboratory.model_fields if name not in {"optics", "camera", "variation"}),
]
strengths = st.floats(0, 3)
pairs = st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES))


def value(laboratory: Laboratory, path: str):
    for name in path.split("."):
        laboratory = getattr(laboratory, name)
    return laboratory


def one(kind: str, strength: float) -> tuple[Shift, ...]:
    return (Shift(kind=kind, strength=strength),)


def test_every_parameter_is_of_one_kind_or_a_label():
    found = {
        path: [kind for kind, parts in PARTS.items() for part in parts if f"{path}.".startswith(f"{part}.")]
        for path in LEAVES
    }
    assert {path: kinds for path, kinds in found.items() if len(kinds) != (path not in LABELS)} == {}
    assert {kind_of(path) for path in found if path not in LABELS} == set(KINDS)
    assert [
        part for parts in PARTS.values() for part in parts if not any(f"{p}.".startswith(f"{part}.") for p in LEAVES)
    ] == []


@given(pair=pairs, kind=st.sampled_from(KINDS), strength=strengths)
def test_only_the_fields_of_the_kind_change_and_they_as_in_the_whole_shift(pair, kind, strength):
    base, target = (LABORATORIES[name] for name in pair)
    found, whole = shifted_by_kind(base, target, one(kind, strength)), shifted(base, target, strength)
    for path in LEAVES:
        expected = target if path in LABELS else whole if kind_of(path) == kind else base
        assert value(found, path) == value(expected, path), path


@given(pair=pairs, kind=st.sampled_from([*KINDS, "all", "missing", "moved"]))
def test_strength_0_changes_nothing_but_labels(pair, kind):
    base, target = (LABORATORIES[name] for name in pair)
    labels = {name: getattr(base, name) for name in LABELS}
    assert shifted_by_kind(base, target, one(kind, 0.0)).model_copy(update=labels) == base


@given(pair=pairs)
def test_the_kinds_together_are_the_target(pair):
    base, target = (LABORATORIES[name] for name in pair)
    assert shifted_by_kind(base, target, [Shift(kind=kind, strength=1.0) for kind in KINDS]) == target
    assert shifted_by_kind(base, target, read_shifts("all:1")) == target
    without = shifted_by_kind(base, target, read_shifts("all:1+optical:0"))
    assert without.camera == target.camera
    assert without.optics.crosstalk == base.optics.crosstalk


def distance(base: Laboratory, other: Laboratory) -> float:
    """Return how far the single numbers of two laboratories are apart, as logarithms."""
    total = 0.0
    for path in LEAVES:
        old, new = value(base, path), value(other, path)
        if path not in LABELS and path not in {"biology", "optics.crosstalk"}:
            each = zip(old, new, strict=True) if isinstance(old, tuple) else [(old, new)]
            # nuisance that one laboratory lacks grows from 0
            total += sum(abs(math.log(b / a)) if a > 0 and b > 0 else abs(b - a) for a, b in each)
    effects = [abs(other.biology.get(key, 0) - base.biology.get(key, 0)) for key in {**base.biology, **other.biology}]
    return total + sum(effects)


@given(pair=pairs, kind=st.sampled_from([*KINDS, "all"]), three=st.tuples(strengths, strengths, strengths))
def test_a_stronger_shift_is_further_away(pair, kind, three):
    base, target = (LABORATORIES[name] for name in pair)
    far = [distance(base, shifted_by_kind(base, target, one(kind, strength))) for strength in sorted(three)]
    assert all(b >= a * (1 - 1e-9) for a, b in itertools.pairwise(far))


@given(pair=pairs, given_=st.lists(st.tuples(st.sampled_from(KINDS), strengths), unique_by=lambda it: it[0]))
def test_every_shift_is_a_valid_laboratory(pair, given_):
    base, target = (LABORATORIES[name] for name in pair)
    shifts = [Shift(kind=kind, strength=strength) for kind, strength in given_]
    found = shifted_by_kind(base, target, shifts)
    assert Laboratory.model_validate(found.model_dump()) == found


def test_pictures_at_strength_0_are_the_sources_own_to_the_bit_and_each_kind_changes_them(experiment):
    base, target = LABORATORIES["lab_a"], LABORATORIES["lab_b"]
    plan = experiment.imaged_wells()[0]
    names = ("batch_1", "plate_1")

    def picture(laboratory: Laboratory) -> np.ndarray:
        compound = experiment.compound(plan.compound)
        # the name draws: under the source's own the pictures must be its own
        own = laboratory.model_copy(update={"name": "lab_a"})
        return render_field(7, own, names, plan, compound, 1, experiment.design)

    usual = picture(base)
    assert np.array_equal(picture(shifted_by_kind(base, target, one("all", 0.0))), usual)
    for kind in KINDS:
        assert not np.array_equal(picture(shifted_by_kind(base, target, one(kind, 1.0))), usual), kind


def test_shifts_are_read_as_they_are_written():
    found = read_shifts(" all:1+missing:0.5 ")
    assert found == (Shift(kind="all", strength=1.0), Shift(kind="missing", strength=0.5))
    assert "+".join(map(str, found)) == "all:1+missing:0.5"
    assert name_of(found) == "all-1-missing-0.5"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optic:1", "kinds all, photometric, optical, geometric, biological, missing"),
        ("optical", "--shift optical:1"),
        ("optical:", "KIND:STRENGTH"),
        ("optical:3.1", "strengths 0 to 3"),
        ("optical:nan", "strengths 0 to 3"),
        ("optical:-1", "strengths 0 to 3"),
        ("missing:1.5", "at most 1"),
        ("optical:1+optical:2", "each kind once"),
        ("", "KIND:STRENGTH"),
    ],
)
def test_a_shift_that_cannot_be_understood_is_refused(text, said):
    with pytest.raises(ConfigError) as refused:
        read_shifts(text)
    assert said in str(refused.value)
