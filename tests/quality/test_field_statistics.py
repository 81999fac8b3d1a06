"""Statistics of a field against independent implementations and planted truths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.draw import disk
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import block_reduce

from coda.contracts import STAINS
from coda.errors import ContractError
from coda.quality.stats import (
    count_nuclei,
    field_statistics,
    focus_slope,
    noise_sigma,
    otsu,
    reduce_field,
    statistic_names,
)


def make_field(seed: int = 0, side: int = 256) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = {name: gaussian(rng.standard_normal((side, side)), sigma=4) for name in STAINS}
    return {
        name: np.clip(800 + 4000 * image + 20 * rng.standard_normal((side, side)), 0, 65535).astype(np.uint16)
        for name, image in smooth.items()
    }


def test_names_and_order_are_those_documented() -> None:
    values = field_statistics(make_field(), bit_depth=16, nuclei="DNA")
    assert tuple(sorted(values)) == tuple(sorted(statistic_names(STAINS, "DNA")))
    assert len(values) == 5 * 15 + 1 + 10 + 10
    assert all(np.isfinite(value) for value in values.values())


@pytest.mark.parametrize("side", [128, 200, 540, 1080])
def test_intensity_statistics_agree_with_numpy_on_all_pixels(side: int) -> None:
    field = make_field(1, side)
    values = field_statistics(field, bit_depth=12, nuclei="DNA")
    for stain, image in field.items():
        spread = float(image.std())
        for name, share in (("p1", 1), ("p5", 5), ("p50", 50), ("p95", 95), ("p99", 99)):
            assert values[f"{name}_{stain}"] == pytest.approx(np.percentile(image, share), abs=0.15 * spread)
        assert values[f"mean_{stain}"] == pytest.approx(image.mean(), abs=0.02 * spread)
        assert values[f"saturation_{stain}"] == pytest.approx((image >= 4095).mean())
        assert values[f"near_black_{stain}"] == pytest.approx((image < 4).mean())


def test_quantiles_are_exact_where_every_pixel_is_looked_at() -> None:
    field = make_field(2, 128)
    values = field_statistics(field, bit_depth=16, nuclei="DNA")
    for stain, image in field.items():
        assert values[f"p50_{stain}"] == np.quantile(image, 0.5, method="nearest")
        assert values[f"p99_{stain}"] == np.quantile(image, 0.99, method="nearest")


def test_dead_saturated_and_constant_pictures_have_finite_telling_numbers() -> None:
    zero = np.zeros((64, 64), np.uint16)
    full = np.full((64, 64), 4095, np.uint16)
    values = field_statistics({"DNA": zero, "ER": full}, bit_depth=12, nuclei="DNA")
    assert all(np.isfinite(value) for value in values.values())
    assert values["near_black_DNA"] == 1.0
    assert values["saturation_ER"] == 1.0
    assert values["near_black_ER"] == values["saturation_DNA"] == 0.0
    assert values["cells_DNA"] == 0
    assert values["separability_DNA"] == values["snr_DNA"] == 0.0


@pytest.mark.parametrize(("side", "factor"), [(160, 1), (256, 2), (1080, 4), (1536, 8)])
def test_reduction_is_a_block_mean(side: int, factor: int) -> None:
    image = np.random.default_rng(3).integers(0, 65535, (2, side, side), dtype=np.uint16)
    expected = block_reduce(image.astype(np.float64), (1, factor, factor), np.mean)
    np.testing.assert_allclose(reduce_field(image), expected, rtol=1e-5)


def test_otsu_agrees_with_scikit_image() -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(100, 5, (200, 200))
    image[50:90, 20:140] += 60
    # the last 0.5 % are clipped on purpose; do the same to the oracle's image
    clipped = np.minimum(image, np.quantile(image, 0.995))
    threshold, separability = otsu(image[None].astype(np.float32))
    cut = threshold_otsu(clipped, nbins=256)
    assert threshold[0] == pytest.approx(cut, abs=3 * np.ptp(clipped) / 256)
    mask = clipped > cut
    share = mask.mean()
    between = share * (1 - share) * (clipped[mask].mean() - clipped[~mask].mean()) ** 2
    assert separability[0] == pytest.approx(between / clipped.var(), abs=0.01)


def test_noise_estimate_is_the_noise_also_on_a_slope() -> None:
    rng = np.random.default_rng(5)
    slope = np.add.outer(np.arange(64), 3 * np.arange(64)).astype(np.float32)
    tiles = np.stack([slope + rng.normal(0, 7, (64, 64)) for _ in range(8)])[None].astype(np.float32)
    assert noise_sigma(tiles)[0] == pytest.approx(7, rel=0.03)


def test_focus_slope_agrees_with_a_naive_radial_average() -> None:
    image = gaussian(np.random.default_rng(6).standard_normal((64, 64)), sigma=1.2)
    centred = (image - image.mean()) * np.outer(np.hanning(65)[:64], np.hanning(65)[:64])
    power = np.abs(np.fft.fft2(centred)) ** 2
    frequency = np.fft.fftfreq(64) * 64
    sums, counts = np.zeros(33), np.zeros(33)
    for row in range(64):
        for column in range(64):
            ring = round(float(np.hypot(frequency[row], frequency[column])))
            if ring <= 32:
                sums[ring] += power[row, column]
                counts[ring] += 1
    rings = np.arange(2, 33)
    expected = np.polyfit(np.log10(rings), np.log10(sums[2:] / counts[2:]), 1)[0]
    # the real transform keeps half of the plane; its edge columns are counted once, so equality is near, not exact
    assert focus_slope(image[None, None].astype(np.float32))[0] == pytest.approx(expected, rel=0.02)


def test_blur_lowers_the_focus_measure_and_noise_the_signal() -> None:
    field = {"DNA": make_field(7)["DNA"]}
    blurred = {"DNA": gaussian(field["DNA"].astype(float), sigma=2.5).astype(np.uint16)}
    noise = np.random.default_rng(8).normal(0, 200, (256, 256))
    noisy = {"DNA": np.clip(field["DNA"] + noise, 0, None).astype(np.uint16)}
    sharp, soft, rough = (field_statistics(item, bit_depth=16, nuclei="DNA") for item in (field, blurred, noisy))
    assert soft["focus_DNA"] < sharp["focus_DNA"] - 0.5
    assert rough["snr_DNA"] < 0.5 * sharp["snr_DNA"]


def test_compactness_is_the_share_that_survives_an_erosion() -> None:
    field = make_field(9, 128)
    values = field_statistics(field, bit_depth=16, nuclei="DNA")
    image = field["ER"].astype(np.float32)
    threshold = otsu(image[None])[0][0]
    mask = image > threshold
    eroded = ndimage.binary_erosion(mask)[1:-1, 1:-1]
    assert values["compactness_ER"] == pytest.approx(eroded.sum() / mask[1:-1, 1:-1].sum(), abs=1e-6)
    assert values["foreground_ER"] == pytest.approx(mask.mean())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 7))
def test_planted_nuclei_are_counted(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(300, 10, (256, 256))
    step = 256 // rows
    for row in range(rows):
        for column in range(rows):
            radius = rng.uniform(7, 8.5)
            image[disk((row * step + step / 2, column * step + step / 2), radius, shape=image.shape)] += 1500
    values = field_statistics({"DNA": image.astype(np.uint16)}, bit_depth=16, nuclei="DNA")
    assert abs(values["cells_DNA"] - rows * rows) <= 0.1 * rows * rows


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), level=st.floats(100, 5000))
def test_an_empty_field_has_no_nuclei(seed: int, level: float) -> None:
    noise = np.random.default_rng(seed).poisson(level, (256, 256)).astype(np.uint16)
    assert field_statistics({"DNA": noise}, bit_depth=16, nuclei="DNA")["cells_DNA"] == 0


def test_a_clump_counts_as_several_nuclei() -> None:
    image = np.full((100, 100), 10.0, np.float32)
    for row in (10, 30, 50):
        image[row : row + 6, 10:16] = 100
    image[70:76, 10:28] = 100
    assert count_nuclei(image, 50.0) == 6


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.5, 8), offset=st.integers(0, 3000))
def test_shape_statistics_do_not_depend_on_gain_and_offset(gain: float, offset: int) -> None:
    field = {name: image.astype(np.float64) for name, image in make_field(10, 128).items()}
    changed = {name: np.rint(image * gain + offset).astype(np.uint16) for name, image in field.items()}
    before = field_statistics(
        {name: image.astype(np.uint16) for name, image in field.items()}, bit_depth=16, nuclei="DNA"
    )
    after = field_statistics(changed, bit_depth=16, nuclei="DNA")
    for name in statistic_names(STAINS, "DNA"):
        if name.startswith(("separability", "foreground", "corr", "focus")):
            assert after[name] == pytest.approx(before[name], abs=0.02)


def without_uneven_light(image: np.ndarray) -> np.ndarray:
    """An independent way: fit a surface of second degree, cut the brightest hundredth of the rest, fit again."""
    height, width = image.shape
    y, x = np.mgrid[0:height, 0:width] / height
    terms = np.stack([x**i * y**j for i in range(3) for j in range(3 - i)], axis=-1).reshape(-1, 6)
    rest = image.astype(float).ravel()
    rest -= terms @ np.linalg.lstsq(terms, rest, rcond=None)[0]
    rest = np.minimum(rest, np.quantile(rest, 0.99))
    return rest - terms @ np.linalg.lstsq(terms, rest, rcond=None)[0]


def test_correlations_are_those_of_the_reduced_pictures_in_even_light() -> None:
    field = make_field(11, 128)
    field["ER"] = (0.5 * field["DNA"] + 0.5 * field["RNA"]).astype(np.uint16)
    values = field_statistics(field, bit_depth=16, nuclei="DNA")
    expected = np.corrcoef(*(without_uneven_light(field[stain]) for stain in ("DNA", "ER")))[0, 1]
    assert expected > 0.5
    assert values["corr_DNA_ER"] == pytest.approx(expected, abs=0.005)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), lamp=st.floats(100, 1200), specks=st.integers(0, 6))
def test_empty_pictures_under_one_lamp_do_not_correlate(seed: int, lamp: float, specks: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    light = lamp * (1.5 - x**2 - 0.7 * y**2 + 0.2 * x)
    field = {stain: 500 + light + rng.normal(0, 20, (256, 256)) for stain in ("ER", "Mito")}
    for _ in range(specks):  # dust shines in every channel
        row, column = rng.integers(4, 250, 2)
        for image in field.values():
            image[row : row + 3, column : column + 3] += 20_000
    raw = {stain: image.clip(0, 65535).astype(np.uint16) for stain, image in field.items()}
    plain = np.corrcoef(raw["ER"].ravel().astype(float), raw["Mito"].ravel().astype(float))[0, 1]
    assert plain > 0.5
    assert abs(field_statistics(raw, bit_depth=16, nuclei="DNA")["corr_ER_Mito"]) < 0.1


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"DNA": np.zeros((64, 64), np.uint16), "ER": np.zeros((64, 32), np.uint16)},
        {"DNA": np.zeros((8, 8), np.uint16)},
    ],
)
def test_pictures_that_do_not_belong_together_are_refused(raw: dict[str, np.ndarray]) -> None:
    with pytest.raises(ContractError, match="one shape") as caught:
        field_statistics(raw, bit_depth=16, nuclei="DNA")
    assert caught.value.problems[0].remedy
