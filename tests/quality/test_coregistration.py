"""Do two stains show one field? Against scipy's correlation, and on pictures made for it."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, signal

from coda.contracts.channels import PRESET_ROLES
from coda.quality.coregistration import NEAR, SIDE, shrunk, zero_shift_scores
from coda.quality.identity import MIN_FIELDS, stain_match


def cells(seed: int, side: int = 96) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = np.zeros((side, side), dtype=np.float32)
    picture[rng.integers(0, side, 30), rng.integers(0, side, 30)] = 100
    return ndimage.gaussian_filter(picture, 3)


def noisy(picture: np.ndarray, seed: int) -> np.ndarray:
    return picture + np.random.default_rng(seed).normal(0, picture.std() / 2, picture.shape)


def test_one_field_stands_out_and_another_field_or_an_empty_one_does_not() -> None:
    empty = np.random.default_rng(9).normal(100, 5, (96, 96))
    stack = np.stack([noisy(cells(1), 2), 7 * noisy(cells(1), 3) + 40, cells(2), empty]).astype(np.float32)
    scores = zero_shift_scores(stack)
    assert scores[0, 1] > 8
    assert np.abs(scores[[0, 0, 1, 1, 2], [2, 3, 2, 3, 3]]).max() < 5
    np.testing.assert_array_equal(scores, scores.T)


def test_scores_are_those_of_the_direct_correlation() -> None:
    a, b = (noisy(cells(1, 24), seed).astype(np.float32) for seed in (4, 5))
    window = np.outer(np.hanning(26)[1:-1], np.hanning(26)[1:-1])
    left, right = ((picture - picture.mean()) * window for picture in (a, b))
    # all cyclic shifts: the plain correlation of one picture with four copies of the other
    direct = signal.correlate2d(np.tile(left, (2, 2))[:-1, :-1], right, mode="valid")
    down = np.minimum(np.arange(24), 24 - np.arange(24))
    near = max(3, 24 // NEAR)
    far = direct[(down[:, None] > near) | (down[None, :] > near)]
    expected = (direct[0, 0] - far.mean()) / far.std()
    assert zero_shift_scores(np.stack([a, b]))[0, 1] == pytest.approx(expected, rel=1e-4)


def test_flat_pictures_have_no_score_and_large_ones_are_averaged() -> None:
    assert zero_shift_scores(np.ones((3, 32, 32), dtype=np.float32)).tolist() == np.zeros((3, 3)).tolist()
    large = np.random.default_rng(0).random((2, 2 * SIDE + 1, 3 * SIDE)).astype(np.float32)
    small = shrunk(large)
    assert max(small.shape[1:]) <= SIDE
    np.testing.assert_allclose(small[1, 0, 0], large[1, :3, :3].mean(), rtol=1e-6)


def test_a_refusal_needs_several_fields_and_empty_wells_count_nowhere() -> None:
    fields = pd.DataFrame({
        "Metadata_pert_type": ["trt"] * MIN_FIELDS + ["empty"] * 20,
        "QC_match_DNA_ER": [9.0] * MIN_FIELDS + [0.0] * 20,
        "QC_match_ER_AGP": [12.0] * MIN_FIELDS + [0.0] * 20,
    })  # fmt: skip
    channels = ("DNA", "ER", "AGP")
    assert stain_match(fields, "ER", channels, PRESET_ROLES) == (12.0, 12.0)
    assert stain_match(fields, "DNA", channels, PRESET_ROLES) == (9.0, 9.0)
    few, sure = stain_match(fields.iloc[1:], "AGP", channels, PRESET_ROLES)
    assert few == 12.0
    assert np.isnan(sure)
    assert np.isnan(
        stain_match(fields.drop(columns=["QC_match_DNA_ER", "QC_match_ER_AGP"]), "ER", channels, PRESET_ROLES)
    ).all()
