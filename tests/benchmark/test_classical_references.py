"""Classical references: standardising, sphering and ComBat against loops, a matrix square root, and neuroCombat."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.benchmark.classical_references import (
    REFERENCES,
    Measured,
    combat,
    references,
    sphered,
    sphering,
    standardised,
)


def made(seed: int, groups: str = "aabb", each: int = 12, width: int = 5, classes: int = 3) -> Measured:
    """Return fields of groups with offsets and scales of their own, a third of them controls."""
    rng = np.random.default_rng(seed)
    names = np.repeat(list(groups), each)
    controls = np.arange(len(names)) % 3 == 0
    codes = np.where(controls, -1, rng.integers(0, classes, len(names)))
    codes[1 : 1 + classes] = [-1 if c else k for k, c in enumerate(controls[1 : 1 + classes])]
    numbers = rng.normal(size=(len(names), width)) + 2 * rng.normal(size=(classes + 1, width))[codes]
    scale = np.array([1 + 0.5 * "abcdefgh".index(name) for name in names])
    return Measured(numbers * scale[:, None] + scale[:, None], names, controls, codes)


@pytest.mark.parametrize("by_controls", [False, True])
def test_standardising_is_by_all_wells_or_controls_of_the_own_group(by_controls):
    fields = made(0)
    fields.controls[fields.groups == "b"] = False
    found = standardised(fields, by_controls=by_controls)
    for row in range(len(found)):
        alike = [
            other
            for other in range(len(found))
            if fields.groups[other] == fields.groups[row]
            and (not by_controls or fields.groups[row] == "b" or fields.controls[other])
        ]
        own = fields.numbers[alike]
        expected = (fields.numbers[row] - own.mean(axis=0)) / np.sqrt(((own - own.mean(axis=0)) ** 2).mean(axis=0))
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-5)


def shrunk(controls: np.ndarray) -> np.ndarray:
    """Ledoit and Wolf 2004, as the paper has it: a loop over samples."""
    centred = controls - controls.mean(axis=0)
    count, width = centred.shape
    sample = sum(np.outer(row, row) for row in centred) / count
    typical = np.trace(sample) / width
    apart = ((sample - typical * np.eye(width)) ** 2).sum()
    noise = sum(((np.outer(row, row) - sample) ** 2).sum() for row in centred) / count**2
    share = min(noise, apart) / apart
    return (1 - share) * sample + share * typical * np.eye(width)


@pytest.mark.parametrize(("fields", "width"), [(200, 6), (8, 20)])
def test_sphering_is_the_inverse_root_of_the_shrunk_covariance(fields, width):
    rng = np.random.default_rng(1)
    controls = rng.normal(size=(fields, width)) @ rng.normal(size=(width, width)) + 3
    mean, matrix = sphering(controls)
    np.testing.assert_allclose(mean, controls.mean(axis=0))
    np.testing.assert_allclose(matrix, np.linalg.inv(scipy.linalg.sqrtm(shrunk(controls)).real), rtol=1e-6, atol=1e-8)
    values, vectors = np.linalg.eigh(shrunk(controls))
    np.testing.assert_allclose(matrix, vectors @ np.diag(values**-0.5) @ vectors.T, rtol=1e-6, atol=1e-8)


def test_sphered_controls_vary_alike_in_all_directions():
    rng = np.random.default_rng(2)
    numbers = rng.normal(size=(4000, 4)) @ (np.eye(4) + 0.4 * np.tri(4))
    fields = Measured(numbers, np.full(4000, "a"), np.ones(4000, bool), np.full(4000, -1))
    found = sphered(fields, by_controls=True)
    np.testing.assert_allclose(np.cov(found.T), np.eye(4), atol=0.02)


def test_sphering_of_constant_and_of_single_controls_is_finite():
    for controls in (np.ones((5, 3)), np.zeros((1, 3)), np.eye(3)[:2]):
        assert np.isfinite(sphering(controls)[1]).all()


def test_combat_gives_what_neurocombat_gives():
    # neuroCombat 0.2.12 (MIT), without covariates, of these numbers
    numbers = np.array([
        [0.13, 4.74, -0.08, 1.05], [-0.54, 5.72, 1.91, 1.47], [-0.7, 2.47, -3.87, 1.02], [-3.5, 6.84, -8.61, 0.94],
        [-0.81, 6.56, -1.16, 2.28], [-0.2, 11.6, -6.0, 1.77], [1.35, 7.78, -6.35, 0.81], [1.54, 7.44, -3.03, 2.9],
        [1.84, 8.08, 0.64, 3.18],
    ])  # fmt: skip
    expected = np.array([
        [0.657093, 6.978749, -1.604748, 1.489535], [-0.275863, 8.091456, 0.528627, 2.045099],
        [-0.498659, 4.401358, -5.667808, 1.449852], [-1.950453, 6.479379, -5.504712, 1.345094],
        [-0.195112, 6.295853, -0.558822, 2.222122], [0.202939, 9.599311, -3.771991, 1.888328],
        [1.21438, 7.0955, -4.004348, 1.26001], [-0.41097, 5.918651, -6.082758, 1.567599],
        [0.219507, 7.228277, -0.621271, 2.104057],
    ])  # fmt: skip
    np.testing.assert_allclose(combat(numbers, np.array(list("aaabbbbcc"))), expected, atol=2e-6)
    order = np.random.default_rng(0).permutation(9)
    mixed = combat(numbers[order], np.array(list("aaabbbbcc"))[order])
    np.testing.assert_allclose(mixed, expected[order], atol=2e-6)


def test_combat_leaves_constant_numbers_and_takes_a_batch_of_one_field():
    numbers = np.column_stack([np.random.default_rng(0).normal(size=(12, 3)), np.full(12, 7.0)])
    found = combat(numbers, np.array(list("aaaaaabbbbbc")))
    assert (found[:, 3] == 7).all()
    assert np.isfinite(found).all()


@given(seed=st.integers(0, 50), scale=st.floats(0.2, 5), offset=st.floats(-20, 20))
@settings(max_examples=15, deadline=None)
def test_what_a_camera_does_to_every_number_alike_changes_no_answer(seed, scale, offset):
    source, target = made(seed), made(seed + 100)
    changed = Measured(target.numbers * scale + offset, target.groups, target.controls, target.codes)
    usual, found = references(source, target), references(source, changed)
    assert list(usual) == list(REFERENCES)
    for name, probabilities in usual.items():
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        if name != "combat":  # it draws offsets towards a prior, and so keeps a little of them
            np.testing.assert_allclose(found[name], probabilities, atol=1e-4)


def test_no_reference_reads_the_targets_classes():
    source, target = made(1), made(2)
    blind = Measured(target.numbers, target.groups, target.controls, np.full(len(target.codes), -1))
    for name, probabilities in references(source, target).items():
        np.testing.assert_array_equal(references(source, blind)[name], probabilities)


def test_profiles_are_kept_and_read(tmp_path):
    fields = made(3)
    fields.write(tmp_path)
    found = Measured.read(tmp_path)
    np.testing.assert_allclose(found.numbers, fields.numbers, rtol=1e-6)
    for name in ("groups", "controls", "codes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(fields, name))
