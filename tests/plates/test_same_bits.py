"""What was made faster gives the very bits of the plain formula that it replaced."""

import numpy as np
import pytest
from batches import field
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from test_illumination import parameters

from coda.config.params import Ingest
from coda.plates.compress import compress_field, percentile
from coda.plates.illumination import LEVELS, MOST_IN_32_BITS, PlateSums, estimate, median_of_disk
from coda.plates.resample import resample
from coda.quality.coregistration import shrunk
from coda.quality.stats import field_statistics, reduce_field

SHAPE = (262, 301)
LIGHT = {"low_percentile": 0.05, "high_percentile": 99.95}


def plain_percentile(image, percent):
    place = percent / 100 * (image.size - 1)
    rank = int(place)
    ordered = np.sort(image, axis=None)
    below, above = float(ordered[rank]), float(ordered[min(rank + 1, image.size - 1)])
    return below + (above - below) * (place - rank)


def picture(kind, rng):
    match kind:
        case "noise":
            values = rng.gamma(1.5, 900, SHAPE)
        case "few values":
            values = rng.poisson(0.4, SHAPE)
        case "bright speck":
            values = rng.normal(300, 9, SHAPE)
            values[:3, :5] = 6e4
        case "columns":  # a sample taken at equal steps may see one column alone
            values = np.tile(np.arange(SHAPE[1]), (SHAPE[0], 1)) % 7 * 1000.0
    return np.clip(values, 0, 65535).astype(np.float32)


@pytest.mark.parametrize("kind", ["noise", "few values", "bright speck", "columns"])
def test_percentiles_are_those_of_all_values_sorted(kind):
    image = picture(kind, np.random.default_rng(5))
    for percent in (0, 0.001, 0.05, 1, 1.99, 2, 2.01, 50, 97.99, 98, 99, 99.95, 99.999, 100):
        assert percentile(image, percent) == plain_percentile(image, percent), percent


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30_000), st.floats(0, 100), st.integers(0, 2**32 - 1), st.integers(1, 5000))
def test_percentiles_of_any_length(size, percent, seed, values):
    image = np.random.default_rng(seed).integers(0, values, size).astype(np.float32)
    assert percentile(image, percent) == plain_percentile(image, percent)


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("factor", [0.5, 1.0, 0.71])
def test_a_stored_field_is_that_of_the_plain_formula(corrected, factor):
    images = list(field(3, SHAPE).values())
    gains = np.random.default_rng(1).uniform(0.3, 1, (5, *SHAPE)).astype(np.float32) if corrected else None
    high = np.full(5, 900.0)
    params = Ingest.model_construct(**LIGHT)
    stored = compress_field(images, gains, high, params, factor)
    for channel, image in enumerate(images):
        raw = image.astype(np.float32)
        if gains is not None:
            raw = raw * gains[channel]
        small = resample(raw, (int(SHAPE[0] * factor), int(SHAPE[1] * factor)))
        low, top = plain_percentile(small, 0.05), min(plain_percentile(small, 99.95), 900.0)
        scaled = (small - np.float32(low)) * np.float32(255 / (top - low))
        assert np.array_equal(stored[channel], np.rint(np.clip(scaled, 0, 255)).astype(np.uint8))


@pytest.mark.parametrize("radius", [0, 1, 4, 12])
def test_the_median_of_a_disk_is_scipys(radius):
    image = np.random.default_rng(2).integers(0, LEVELS, (41, 37)).astype(np.uint16)
    axis = np.arange(-radius, radius + 1)
    disk = axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2
    assert np.array_equal(median_of_disk(image, radius), ndimage.median_filter(image, footprint=disk, mode="nearest"))


def test_sums_that_32_bits_may_not_hold_have_64():
    bright = [np.full((16, 16), LEVELS - 1, dtype=np.uint16)]
    sums, more = PlateSums(1, (16, 16)), PlateSums(1, (16, 16))
    for each in (sums, more):
        each.add(bright)
        each.count, each.total = MOST_IN_32_BITS, each.total * np.uint32(MOST_IN_32_BITS)
    assert sums.total.dtype == np.uint32
    sums.merge(more)
    sums.add(bright)
    assert (sums.total == (2 * MOST_IN_32_BITS + 1) * (LEVELS - 1)).all()
    plain = PlateSums(1, (16, 16))
    plain.add(bright)
    wide = PlateSums(1, (16, 16))
    wide.total = wide.total.astype(np.uint64)
    wide.merge(plain)
    rules = parameters(min_fields=1)
    assert np.array_equal(*(estimate(each, rules, high_percentile=99).function for each in (plain, wide)))


@pytest.mark.parametrize("side", [30, 161, 641, 1281, 2561])
@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_are_reduced_to_the_mean_of_their_squares(side, bits):
    image = np.random.default_rng(7).integers(0, 2**bits, (2, side, side + 2)).astype(np.uint16)
    image[0] = 2**bits - 1
    reduced = reduce_field(list(image))
    step = -(-max(reduced.shape[1:]) // 160)
    height, width = (length // step for length in reduced.shape[1:])
    squares = reduced[:, : height * step, : width * step].reshape(2, height, step, width, step)
    assert np.array_equal(shrunk(reduced), squares.mean(axis=(2, 4)))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_counts_of_dark_and_full_pixels_are_whole(bits):
    top = 2**bits - 1
    image = np.random.default_rng(9).integers(0, top + 1, (120, 90)).astype(np.uint16)
    image[:20] = top
    values = field_statistics({"DNA": image}, bit_depth=bits, nuclei=None)
    assert values["saturation_DNA"] == (image >= float(top)).mean()
    assert values["near_black_DNA"] == (image <= int(top / 1024)).mean()
