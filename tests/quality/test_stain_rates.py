"""How often the limits on single stains accuse sound pictures, and how often they see a planted fault.

The fields are real and unmodified; decision 0049 states the counts.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from real_cells import real_fields, table_of
from scipy import ndimage

from coda.quality.stats import noise_sigma
from coda.quality.suite import load_suite

Picture = np.ndarray
rng = np.random.default_rng(0)


def noise(image: Picture, size: float) -> Picture:
    return rng.normal(0, size, image.shape)


def camera_noise(image: Picture) -> float:
    return float(np.median(noise_sigma(image[None, None].astype(np.float32))))


def overexposed(share: float) -> Callable[[Picture, int], Picture]:
    return lambda image, top: image * (top / np.quantile(image, 1 - share))


def dim(snr: float) -> Callable[[Picture, int], Picture]:
    def planted(image: Picture, top: int) -> Picture:
        return image + noise(image, (np.quantile(image, 0.99) - np.quantile(image, 0.05)) / snr)

    return planted


def blurred(pixels: float) -> Callable[[Picture, int], Picture]:
    return lambda image, top: ndimage.gaussian_filter(image, pixels) + noise(image, camera_noise(image))


FAULTS: dict[str, tuple[Callable[[Picture, int], Picture], str, str]] = {
    "nothing but noise": (lambda image, top: np.median(image) + noise(image, image.std() / 10), "critical", "snr"),
    "nothing but black": (lambda image, top: np.abs(noise(image, 0.3)), "critical", "snr"),
    "a tenth overexposed": (overexposed(0.1), "critical", "saturation"),
    "2 % overexposed": (overexposed(0.02), "warning", "saturation"),
    "signal 4 times the noise": (dim(4), "warning", "snr"),
}


@pytest.fixture(scope="module")
def fields(shared_data: Path):
    return list(real_fields(shared_data / "images"))


def limits(severity: str) -> dict[str, tuple[float, float]]:
    """Return statistic -> lowest and highest value of the shipped suite, for the figures of one stain."""
    found = {}
    for item in load_suite("cell-painting-v3").expectations:
        statistic, _, kind = item.arguments.get("column", "").rpartition("_")
        if item.table == "stains" and item.severity == severity and kind in {"median", "p90", "required"}:
            found[statistic] = (item.arguments.get("min_value", -np.inf), item.arguments.get("max_value", np.inf))
    return found


def outside(table, statistic: str, low: float, high: float) -> np.ndarray:
    values = table.filter(regex=f"^QC_{statistic}_").to_numpy()
    return ~((values >= low) & (values <= high))


def planted(raw: dict[str, Picture], bits: int, fault: Callable[[Picture, int], Picture]) -> dict[str, Picture]:
    top = 2**bits - 1
    return {
        stain: np.clip(np.rint(fault(image.astype(np.float64), top)), 0, top).astype(np.uint16)
        for stain, image in raw.items()
    }


def test_sound_pictures_are_not_accused(fields) -> None:
    tables = [table_of([raw], bits) for _, bits, raw in fields]
    for severity, most in (("critical", 0), ("warning", 1)):
        accused = sum(
            int(outside(table, name, *bounds).sum()) for table in tables for name, bounds in limits(severity).items()
        )
        assert accused <= most, severity
    assert sum(table.filter(regex="^QC_snr_").size for table in tables) == 147


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen_in_every_picture(fields, fault: str) -> None:
    change, severity, statistic = FAULTS[fault]
    for name, bits, raw in fields[::4]:
        table = table_of([planted(raw, bits, change)], bits)
        assert outside(table, statistic, *limits(severity)[statistic]).all(), name


def test_blur_moves_the_focus_measure_further_than_sound_plates_differ(fields) -> None:
    (low, high), = (
        (item.arguments["min_value"], item.arguments["max_value"])
        for item in load_suite("cell-painting-v3").expectations
        if item.name == "focus_is_as_on_other_plates"
    )  # fmt: skip
    rows = [
        (*name.split("/")[:2], stain, value)
        for name, bits, raw in fields
        if "/" in name
        for stain, value in zip(raw, table_of([raw], bits).filter(regex="^QC_focus_").to_numpy()[0], strict=True)
    ]
    apart = []
    for cell, plate, stain, _ in set(rows):
        of_cell = [row for row in rows if (row[0], row[2]) == (cell, stain)]
        own, rest = ([row[3] for row in of_cell if (row[1] == plate) == same] for same in (True, False))
        apart.append(np.median(own) - np.median(rest))
    assert low < min(apart)
    assert max(apart) < high
    for pixels, seen in ((4, 0.9), (8, 1.0)):
        found = []
        for _, bits, raw in fields[::4]:
            sharp, soft = (
                table_of([picture], bits).filter(regex="^QC_focus_").to_numpy()
                for picture in (raw, planted(raw, bits, blurred(pixels)))
            )
            found += list(((soft - sharp < low) | (soft - sharp > high))[0])
        assert np.mean(found) >= seen
