"""The classical profile of a field against scikit-image, scipy and plain loops, and on pictures without structure."""

from itertools import combinations, pairwise, product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage import feature, filters, measure

from coda.networks.profile import (
    DISTANCES,
    LEVELS,
    PERCENTILES,
    SMALLEST,
    Profile,
    feature_names,
    otsu,
    profile_of,
)

STAINS = ("DNA", "AGP", "RNA")


def picture(seed: int, side: tuple[int, int] = (40, 52), stains: int = 3) -> NDArray[np.uint8]:
    """Return blobs of several sizes on a background: structure at every scale."""
    noise = np.random.default_rng(seed).random((stains, *side))
    smooth = ndimage.gaussian_filter(noise, (0, 2.5, 2.5)) + 0.02 * noise
    low, high = smooth.min(axis=(1, 2), keepdims=True), smooth.max(axis=(1, 2), keepdims=True)
    return ((smooth - low) / (high - low) * 255).astype(np.uint8)


def numbers(image: NDArray[np.uint8], stains: tuple[str, ...] = STAINS) -> dict[str, float]:
    return dict(zip(feature_names(stains), profile_of(image).tolist(), strict=True))


def test_intensities_are_those_of_numpy_and_scipy() -> None:
    image = picture(1)
    found = numbers(image)
    for stain, channel in zip(STAINS, image, strict=True):
        values = channel.reshape(-1).astype(float)
        assert found[f"{stain}: mean"] == pytest.approx(values.mean())
        assert found[f"{stain}: sd"] == pytest.approx(values.std())
        assert found[f"{stain}: skewness"] == pytest.approx(stats.skew(values))
        for wanted in PERCENTILES:
            expected = np.percentile(values, wanted, method="inverted_cdf")
            assert found[f"{stain}: p{wanted}"] == expected


def test_textures_are_those_of_scikit_image() -> None:
    image = picture(2)
    found = numbers(image)
    for (stain, channel), distance in product(zip(STAINS, image, strict=True), DISTANCES):
        matrix = feature.graycomatrix(channel // 16, [distance], [0, np.pi / 2], LEVELS, symmetric=True)
        pooled = matrix.sum(axis=3, keepdims=True).astype(float)
        pooled /= pooled.sum()
        for name, theirs in (
            ("contrast", "contrast"), ("correlation", "correlation"), ("energy", "ASM"), ("homogeneity", "homogeneity"),
        ):  # fmt: skip
            expected = feature.graycoprops(pooled, theirs)[0, 0]
            assert found[f"{stain}: {name}_{distance}px"] == pytest.approx(expected), name
        assert found[f"{stain}: entropy_{distance}px"] == pytest.approx(stats.entropy(pooled.reshape(-1), base=2))


def test_granularity_is_the_variance_that_means_of_blocks_lose() -> None:
    image = picture(3, (37, 50), stains=1)
    found = numbers(image, ("DNA",))
    variances = [image[0].astype(float).var()]
    blocks = image[0].astype(float)
    for _ in range(4):
        rows, columns = blocks.shape[0] // 2, blocks.shape[1] // 2
        blocks = np.array(
            [
                [blocks[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean() for column in range(columns)]
                for row in range(rows)
            ]
        )
        variances.append(blocks.var())
    for scale, (one, other) in enumerate(pairwise(variances)):
        assert found[f"DNA: granularity_{2 ** (scale + 1)}px"] == pytest.approx((one - other) / variances[0])


def test_coarse_pictures_are_coarse_in_granularity() -> None:
    fine = np.indices((32, 32)).sum(axis=0) % 2 * 200
    coarse = (np.indices((32, 32)) // 8).sum(axis=0) % 2 * 200
    assert numbers(fine[None].astype(np.uint8), ("DNA",))["DNA: granularity_2px"] == pytest.approx(1)
    found = numbers(coarse[None].astype(np.uint8), ("DNA",))
    assert found["DNA: granularity_16px"] == pytest.approx(1)
    assert found["DNA: granularity_2px"] == 0


def test_thresholds_are_those_of_scikit_image() -> None:
    for seed in range(5):
        channel = picture(10 + seed, stains=1)[0]
        assert otsu(np.bincount(channel.reshape(-1), minlength=256)) == filters.threshold_otsu(channel)


def test_shapes_are_those_of_regionprops() -> None:
    image = picture(4, (120, 160), stains=1)
    halved = measure.block_reduce(image[0].astype(int), (2, 2), np.sum) // 4
    mask = halved > filters.threshold_otsu(halved.astype(np.uint8))
    regions = [item for item in measure.regionprops(measure.label(mask, connectivity=1)) if item.area >= SMALLEST]
    found = numbers(image, ("DNA",))
    assert len(regions) > 3
    assert found["DNA: foreground"] == pytest.approx(mask.mean())
    assert found["DNA: objects"] == pytest.approx(len(regions) / halved.size * 1e4)
    areas = np.log([item.area for item in regions])
    assert found["DNA: object_area"] == pytest.approx(areas.mean())
    assert found["DNA: object_area_sd"] == pytest.approx(areas.std())
    # a pixel is a square there and a point in scikit-image: its own second moment is 1/12
    axes = [[value + 1 / 12 for value in item.inertia_tensor_eigvals] for item in regions]
    elongation = [1 - (small / large) ** 0.5 for large, small in axes]
    assert found["DNA: elongation"] == pytest.approx(np.mean(elongation))
    assert found["DNA: object_contrast"] == pytest.approx(halved[mask].mean() - halved[~mask].mean())


def test_stains_are_correlated_as_numpy_says() -> None:
    image = picture(5)
    image[1] = image[0] // 2 + image[1] // 2
    found = numbers(image)
    for (one, a), (other, b) in combinations(zip(STAINS, image, strict=True), 2):
        expected = np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1]
        assert found[f"{one} and {other}: correlation"] == pytest.approx(expected)
        coarse = [measure.block_reduce(part.astype(float), (4, 4), np.mean).reshape(-1) for part in (a, b)]
        assert found[f"{one} and {other}: coarse_correlation"] == pytest.approx(np.corrcoef(*coarse)[0, 1])


@pytest.mark.parametrize("stains", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("side", [(1, 1), (1, 9), (2, 2), (3, 5), (17, 16), (48, 33)])
def test_any_number_of_stains_and_any_size_gives_finite_numbers(stains: int, side: tuple[int, int]) -> None:
    names = feature_names([str(number) for number in range(stains)])
    assert len(set(names)) == len(names)
    for image in (
        np.zeros((stains, *side), dtype=np.uint8),
        np.full((stains, *side), 255, dtype=np.uint8),
        np.random.default_rng(0).integers(0, 256, (stains, *side)).astype(np.uint8),
    ):
        found = profile_of(image)
        assert found.shape == (len(names),)
        assert found.dtype == np.float64
        assert np.isfinite(found).all()


def test_constant_pictures_say_that_nothing_is_there() -> None:
    found = numbers(np.full((3, 32, 32), 90, dtype=np.uint8))
    assert found["DNA: mean"] == 90
    for name in ("sd", "skewness", "contrast_1px", "entropy_4px", "granularity_8px", "foreground", "objects"):
        assert found[f"DNA: {name}"] == 0, name
    assert found["DNA and AGP: correlation"] == 0


def test_order_of_stains_orders_the_numbers_and_changes_none() -> None:
    image = picture(6)
    here, there = numbers(image), numbers(image[::-1], STAINS[::-1])
    for name, value in here.items():
        pair, _, feature_name = name.partition(": ")
        turned = " and ".join(reversed(pair.split(" and ")))
        assert there[f"{turned}: {feature_name}"] == value


def test_turning_and_mirroring_change_little_and_repeating_changes_nothing() -> None:
    image = picture(7, (48, 48))
    assert np.array_equal(profile_of(image), profile_of(image.copy()))
    assert np.allclose(profile_of(image), profile_of(image[:, ::-1, ::-1]), rtol=1e-9, atol=1e-9)
    assert np.allclose(profile_of(image), profile_of(np.transpose(image, (0, 2, 1))), rtol=1e-9, atol=1e-9)


def test_the_profile_of_a_release_has_its_stains() -> None:
    front = Profile({"channels": list(STAINS)})
    assert (front.channels, front.width, front.pool) == (STAINS, len(feature_names(STAINS)), "mean")
