"""Effects of the place on the plate and control separation, against planted truths and naive formulas."""

import numpy as np
import pandas as pd
import pytest

from coda.quality.plate_effects import control_separation, edge_effect, plate_effects, well_table


def fields_of(grid: np.ndarray, sites: int = 2, pert_type: str = "trt") -> pd.DataFrame:
    rows = [
        {
            "Metadata_Well": f"{chr(65 + row)}{column + 1:02d}",
            "Metadata_pert_type": pert_type,
            "QC_x": grid[row, column],
        }
        for row in range(grid.shape[0])
        for column in range(grid.shape[1])
        if np.isfinite(grid[row, column])
        for _ in range(sites)
    ]
    return pd.DataFrame(rows)


def test_well_table_is_in_plate_layout_with_gaps() -> None:
    grid = np.arange(24.0).reshape(4, 6)
    grid[1, 2] = np.nan
    table = well_table(fields_of(grid), "x", (4, 6))
    np.testing.assert_array_equal(table.to_numpy(), grid)
    assert list(table.index) == ["A", "B", "C", "D"]
    assert list(table.columns) == [1, 2, 3, 4, 5, 6]


def test_well_table_takes_the_median_of_sites_and_refuses_strange_names() -> None:
    fields = pd.DataFrame({"Metadata_Well": ["B02"] * 3, "QC_x": [1.0, 2.0, 90.0]})
    assert well_table(fields, "QC_x").loc["B", 2] == 2.0
    with pytest.raises(ValueError, match="well names"):
        well_table(fields.assign(Metadata_Well="nowhere"), "x")


def test_planted_effects_are_found_in_the_right_direction() -> None:
    rng = np.random.default_rng(0)
    grid = rng.normal(0, 1, (16, 24))
    flat = plate_effects(well_table(fields_of(grid, 1), "x", (16, 24)))
    rows = plate_effects(well_table(fields_of(grid + 3 * (np.arange(16) % 2)[:, None], 1), "x", (16, 24)))
    assert rows.row > 2 * flat.row
    assert rows.column < 1.5 * flat.column + 1


def laid_out(rng: np.random.Generator, layout: str, shift: float) -> pd.DataFrame:
    """A 384-well plate in random order whose treatments differ by ten deviations and whose edge is off by `shift`."""
    wells = [(row, column) for row in range(16) for column in range(24)]
    names = {
        "controls": ["DMSO"] * 128 + [f"T{number}" for number in range(256)],
        "replicates": [f"T{number // 4}" for number in range(384)],
        "singles": [f"T{number}" for number in range(384)],
    }[layout]
    order = rng.permutation(384)
    effects = {name: rng.normal(0, 10) for name in sorted(set(names))}
    edge = np.array([row in {0, 15} or column in {0, 23} for row, column in wells])
    treatments = [names[place] for place in order]
    values = np.array([effects[name] for name in treatments]) + rng.normal(0, 1, 384) + shift * edge
    return pd.DataFrame({
        "Metadata_Well": [f"{chr(65 + row)}{column + 1:02d}" for row, column in wells],
        "Metadata_Treatment": treatments,
        "Metadata_pert_type": ["negcon" if name == "DMSO" else "trt" for name in treatments],
        "QC_x": values,
    })  # fmt: skip


@pytest.mark.parametrize("layout", ["controls", "replicates"])
def test_edge_effect_compares_wells_that_got_the_same(layout: str) -> None:
    rng = np.random.default_rng(7)
    even = [edge_effect(laid_out(rng, layout, 0.0), "QC_x", (16, 24)) for _ in range(100)]
    dim = [edge_effect(laid_out(rng, layout, -5.0), "QC_x", (16, 24)) for _ in range(100)]
    assert max(abs(effect) for effect in even) < 3  # the suite's limit
    assert np.median(dim) == pytest.approx(-5, abs=0.5)
    assert max(dim) < -3
    assert np.isnan(edge_effect(laid_out(rng, "singles", -5.0), "QC_x", (16, 24)))


def test_effects_are_not_stated_from_a_few_wells() -> None:
    effects = plate_effects(well_table(fields_of(np.ones((2, 3))), "x"))
    assert np.isnan([effects.row, effects.column]).all()


def test_control_separation_follows_the_published_formulas() -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.normal(10, 1, (1, 12)), rng.normal(0, 1, (1, 12))
    down = fields_of(negative, 1, "negcon")
    up = fields_of(positive, 1, "poscon").assign(Metadata_Well=[f"B{k + 1:02d}" for k in range(12)])
    result = control_separation(pd.concat([up, down]), "x")

    def deviation(values: np.ndarray) -> float:
        ordered = sorted(abs(value - np.median(values)) for value in values.ravel())
        return 1.4826 * (ordered[5] + ordered[6]) / 2

    gap = np.median(positive) - np.median(negative)
    assert result.robust_z_prime == pytest.approx(1 - 3 * (deviation(positive) + deviation(negative)) / gap)
    assert result.ssmd == pytest.approx(gap / np.sqrt(deviation(positive) ** 2 + deviation(negative) ** 2))
    assert (result.positive_wells, result.negative_wells) == (12, 12)


def test_too_few_controls_give_no_number() -> None:
    result = control_separation(fields_of(np.ones((1, 3)), 1, "negcon"), "x")
    assert np.isnan(result.robust_z_prime)
    assert np.isnan(result.ssmd)
