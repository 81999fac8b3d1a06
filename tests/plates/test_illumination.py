"""Illumination and compression against straightforward implementations with scikit-image and numpy."""

import numpy as np
from batches import field
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import median
from skimage.morphology import disk
from skimage.transform import resize

from coda.config.params import Illumination
from coda.contracts import STAINS
from coda.plates.compress import compress_field, stretch
from coda.plates.illumination import PlateSums, estimate
from coda.plates.resample import operator, resample

SHAPE = (96, 120)
FIELDS = [list(field(seed, SHAPE).values()) for seed in range(6)]


def parameters(**changes):
    values = {
        "enabled": True,
        "down_scale_factor": 4,
        "median_filter_size": 6,
        "floor_percentile": 2.0,
        "min_fields": 4,
        "prefer_given": True,
    }
    return Illumination(**(values | changes))


def summed(fields=FIELDS, shape=SHAPE):
    sums = PlateSums(len(fields[0]), shape)
    for images in fields:
        sums.add(images)
    return sums


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(16, 90), st.integers(16, 90)), st.tuples(st.integers(4, 120), st.integers(4, 120)))
def test_resampling_is_scikit_images_resize(source, target):
    image = np.random.default_rng(1).uniform(0, 60000, source).astype(np.float32)
    wide = resample(np.ascontiguousarray(image), (target[0], source[1]))
    oracle = resize(image.astype(float), (target[0], source[1]), order=1, mode="reflect", preserve_range=True,
                    anti_aliasing=target[0] < source[0])  # fmt: skip
    assert np.abs(wide - oracle).max() < 0.5
    assert np.allclose(operator(source[1], target[1]).sum(axis=1), 1, atol=1e-5)


def test_resampling_to_its_own_shape_changes_nothing():
    image = np.arange(400, dtype=np.float32).reshape(20, 20)
    assert resample(image, (20, 20)) is image


def naive_function(images, params):
    """The illumination function of one channel, field by field, at full size, in double precision."""
    small = (SHAPE[0] // 4, SHAPE[1] // 4)
    mean = np.mean(
        [resize(i.astype(float), small, mode="reflect", anti_aliasing=True, preserve_range=True) for i in images],
        axis=0,
    )
    smooth = median(mean.astype(np.uint16), disk(params.median_filter_size // 2))
    full = resize(smooth.astype(float), SHAPE, mode="reflect", preserve_range=True)
    floor = np.percentile(full, params.floor_percentile)
    return np.maximum(full, floor) / floor


def naive_compress(image, function, plate_high, low, high, factor):
    """One image corrected, reduced, clipped and stretched, in double precision."""
    shape = (int(image.shape[0] * factor), int(image.shape[1] * factor))
    small = resize(image / function, shape, mode="reflect", anti_aliasing=True, preserve_range=True)
    bottom, top = np.percentile(small, low), min(np.percentile(small, high), plate_high)
    return np.rint((np.clip(small, bottom, top) - bottom) / (top - bottom) * 255)


def test_the_illumination_function_is_the_naive_one():
    params = parameters()
    full = estimate(summed(), params, high_percentile=99.99).full()
    assert full.min() >= 1
    for channel in range(5):
        oracle = naive_function([images[channel] for images in FIELDS], params)
        # the mean is cut to whole counts before the median, where single and double precision may fall apart by one
        assert np.abs(full[channel] / oracle - 1).max() < 0.01


def test_plate_percentiles_are_those_of_all_pixels():
    result = estimate(summed(), parameters(), high_percentile=99.9)
    pixels = [np.concatenate([images[channel].ravel() for images in FIELDS]) for channel in range(5)]
    for channel in range(5):
        ordered = np.sort(pixels[channel])
        assert result.high[channel] == ordered[int(0.999 * len(ordered))]
        assert abs(result.low[channel] - np.percentile(pixels[channel], 0.01)) <= 60


def test_compression_is_the_naive_one_within_rounding(demo_params):
    result = estimate(summed(), parameters(), high_percentile=99.99)
    gains = 1 / result.full()
    params = demo_params.ingest
    for images in FIELDS[:2]:
        stored = compress_field(images, gains, result.high, params, params.scaling_factor)
        for channel, image in enumerate(images):
            oracle = naive_compress(image, result.full()[channel], result.high[channel], params.low_percentile,
                                    params.high_percentile, params.scaling_factor)  # fmt: skip
            difference = np.abs(stored[channel] - oracle)
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.01


def test_a_vignette_is_removed_and_an_even_plate_is_left_alone():
    rows, columns = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    light = 1 - 0.4 * (rows**2 + columns**2) / 2
    rng = np.random.default_rng(2)
    dimmed = [[(2000 * light + rng.normal(0, 20, SHAPE)).astype(np.uint16)] for _ in range(12)]
    full = estimate(summed(dimmed), parameters(), high_percentile=99.99).full()[0]
    flat = np.mean([images[0] / full for images in dimmed], axis=0)
    inner = flat[8:-8, 8:-8]
    assert np.ptp(inner) / inner.mean() < 0.1
    assert np.ptp(2000 * light[8:-8, 8:-8]) / 2000 > 0.25, "the light itself is uneven"
    even = [[np.full(SHAPE, 700, np.uint16)]] * 5
    assert np.array_equal(estimate(summed(even), parameters(), high_percentile=99).full()[0], np.ones(SHAPE))


def test_few_fields_or_the_switch_leave_images_uncorrected():
    few = estimate(summed(FIELDS[:3]), parameters(), high_percentile=99.99)
    off = estimate(summed(), parameters(enabled=False), high_percentile=99.99)
    assert (few.origin, off.origin) == ("too_few_fields", "off")
    assert np.all(few.function == 1)
    assert np.all(off.function == 1)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 5))
def test_sums_do_not_depend_on_how_fields_are_shared(order, cut):
    whole = summed()
    left = summed([FIELDS[number] for number in order[:cut]])
    left.merge(summed([FIELDS[number] for number in order[cut:]]))
    assert left.count == whole.count
    assert np.array_equal(left.total, whole.total)
    assert np.array_equal(left.histogram, whole.histogram)


@given(st.floats(0, 60000), st.floats(1, 5000))
def test_stretch_maps_its_range_to_eight_bits(low, width):
    image = np.array([[low - 5, low, low + width, low + width + 5]], dtype=np.float32)
    low32, high32 = float(np.float32(low)), float(np.float32(low + width))
    assert stretch(image, low32, high32)[0].tolist() == [0, 0, 255, 255]


def test_an_image_without_range_becomes_zeros():
    assert stretch(np.full((3, 3), 7, np.float32), 7.0, 7.0).max() == 0
    assert len(STAINS) == 5
