"""Other microscopes on stored pixels: what each kind changes, and what it leaves."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from coda.benchmark.held_out_plates import target_of
from coda.benchmark.pixel_shifts import KINDS, LOG_MAGNIFICATION, MAX_STRENGTH, read_pixel_shift, seen_through
from coda.errors import ConfigError
from coda.simulation.shifts import Shift


def shift(kind, strength):
    return Shift(kind=kind, strength=strength)


@pytest.fixture(scope="module")
def real_fields(shared_data):
    """Crops of real fields of four cell types: (4, 3, 160, 160)."""
    wells = sorted((shared_data / "images/rxrx1/train").glob("*-01/Plate1/B02_s1_w1.png"))
    assert len(wells) == 4
    return np.stack(
        [
            np.stack(
                [np.asarray(Image.open(str(path).replace("_w1", f"_w{stain}")))[:160, :160] for stain in (1, 2, 3)]
            )
            for path in wells
        ]
    )


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 9), stains=st.integers(1, 5))
def test_strength_zero_gives_the_same_bytes(kind, seed, stains):
    images = np.random.default_rng(seed).integers(0, 256, (2, stains, 24, 32), np.uint8)
    found = seen_through(images, ["a", "b"], shift(kind, 0))
    np.testing.assert_array_equal(found, images)
    assert not np.shares_memory(found, images)


@given(kind=st.sampled_from(KINDS), strength=st.floats(0, MAX_STRENGTH), seed=st.integers(0, 9))
def test_a_field_looks_the_same_wherever_it_stands(kind, strength, seed):
    images = np.random.default_rng(seed).integers(0, 256, (3, 2, 24, 24), np.uint8)
    names, order = ["a", "b", "c"], [2, 0, 1]
    found = seen_through(images, names, shift(kind, strength))
    again = seen_through(images[order], [names[place] for place in order], shift(kind, strength))
    np.testing.assert_array_equal(found[order], again)
    assert found.dtype == np.uint8


def test_a_stronger_shift_is_further_away_on_real_fields(real_fields):
    names = list("abcd")
    for kind in KINDS:
        away = [
            np.abs(seen_through(real_fields, names, shift(kind, strength)).astype(float) - real_fields).mean()
            for strength in (0, 0.5, 1, 2)
        ]
        assert all(first < second for first, second in itertools.pairwise(away)), (kind, away)


def test_optics_blur_and_leak_and_leave_the_light_of_a_single_stain(real_fields):
    alone = real_fields[:, :1]
    found = seen_through(alone, list("abcd"), shift("optical", 1))
    for before, after in zip(alone[:, 0].astype(float), found[:, 0], strict=True):
        narrow, wide = (gaussian_filter(before, sigma, mode="reflect") for sigma in (1.5, 12))
        np.testing.assert_allclose(after, 0.8 * narrow + 0.2 * wide, atol=1.0)
    both = np.stack([np.full((64, 64), 100, np.uint8), np.zeros((64, 64), np.uint8)])[None]
    leaked = seen_through(both, ["a"], shift("optical", 1))[0]
    assert np.unique(leaked[1]).tolist() == [15]
    assert np.unique(leaked[0]).tolist() == [100]


def test_geometry_magnifies_about_the_middle():
    side = 101
    rows, columns = np.mgrid[:side, :side] - side // 2
    disc = (np.hypot(rows, columns) <= 20).astype(np.uint8) * 200
    found = seen_through(disc[None, None], ["a"], shift("geometric", 1))[0, 0]
    factor = np.exp(LOG_MAGNIFICATION)
    assert (found > 100).sum() == pytest.approx((disc > 100).sum() * factor**2, rel=0.03)
    inside = np.argwhere(found > 100) - side // 2
    np.testing.assert_allclose(inside.mean(axis=0), 0, atol=0.2)


def test_photometry_is_a_curve_a_gain_by_stain_and_noise_and_moves_nothing(real_fields):
    flat = np.full((1, 2, 128, 128), 120, np.uint8)
    found = seen_through(flat, ["a"], shift("photometric", 1)).astype(float)
    curved = 255 * (120 / 255) ** np.exp(0.25)
    for stain, sign in enumerate((1, -1)):
        assert found[0, stain].mean() == pytest.approx(curved * np.exp(sign * 0.35) + 10, abs=0.2)
        assert found[0, stain].std() == pytest.approx(4, rel=0.05)
    shown = seen_through(real_fields, list("abcd"), shift("photometric", 1))
    pictures = zip(real_fields.reshape(-1, 160, 160), shown.reshape(-1, 160, 160), strict=True)
    bright = [(before, after) for before, after in pictures if before.std() > 10]  # noise hides the others
    assert len(bright) >= 3
    for before, after in bright:
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.85


def test_what_is_typed_and_what_cannot_be_understood():
    assert read_pixel_shift("optical:0.5") == shift("optical", 0.5)
    assert target_of(read_pixel_shift("geometric:1")) == "held-out, geometric 1"
    for text in ("optical", "optical:", "optical:-1", "optical:2.1", "biology:1", "optical:1:2", "optical:nan"):
        with pytest.raises(ConfigError, match="optical:1"):
            read_pixel_shift(text)
