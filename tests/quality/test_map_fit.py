"""Plate maps that are not of their plate: how often they are named, and that right ones are not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.plates.layout import parse_well, well_name
from coda.quality.map_fit import DRAWS, LEAD, PLAIN, Profiles, expected_of, map_columns, map_fit, other_maps

SHAPE = (6, 8)
WELLS = [well_name(row, column) for row in range(SHAPE[0]) for column in range(SHAPE[1])]


def layout(seed: int = 0) -> dict[str, str]:
    """Eight untreated wells and forty treatments, each once."""
    names = ["DMSO"] * 8 + [f"t{number}" for number in range(40)]
    return dict(zip(WELLS, np.random.default_rng(seed).permutation(names).tolist(), strict=True))


def plate(seed: int, truth: dict[str, str], effect: float = 1.0, declared: dict[str, str] | None = None) -> Profiles:
    """Twenty statistics of noise and of what each treatment does."""
    rng = np.random.default_rng([7, seed])
    does = {name: np.random.default_rng(list(name.encode())).normal(size=20) for name in set(truth.values())}
    does["DMSO"] = np.zeros(20)
    values = np.array([effect * does[truth[well]] + rng.normal(size=20) for well in WELLS])
    return Profiles(dict(declared or truth), pd.DataFrame(values, index=WELLS))


def test_the_p_value_of_a_map_that_has_nothing_to_do_with_the_plate_is_uniform() -> None:
    """The one thing known of the test: at 5 % it takes 5 % of random maps for right, whatever is on the plate."""
    truth = layout()
    expected = expected_of([plate(1, truth)])
    fits = [map_fit(plate(0, truth), layout(seed), expected, draws=99) for seed in range(1, 401)]
    for values in ([fit.p for fit in fits], [fit.p_alone for fit in fits]):
        below = [float(np.mean(np.array(values) <= level)) for level in (0.05, 0.25, 0.5)]
        assert below == pytest.approx([0.05, 0.25, 0.5], abs=0.075)


@given(seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_the_sums_are_those_of_a_loop_over_pairs(seed: int) -> None:
    """Sum of squares between groups is half the mean squared distance of all wells less that within treatments."""
    truth = layout(seed)
    own = plate(seed, truth)
    groups = [own.values.loc[[w for w in WELLS if truth[w] == name]].to_numpy() for name in set(truth.values())]
    within = sum(((a - b) ** 2).sum() / len(group) / 2 for group in groups for a in group for b in group)
    total = (own.values.to_numpy() ** 2).sum()
    from coda.quality.map_fit import _fits

    wells = sorted(WELLS, key=lambda well: truth[well])
    names = [truth[well] for well in wells]
    starts = np.array([k for k, name in enumerate(names) if k == 0 or names[k - 1] != name])
    sizes = np.diff([*starts, len(names)])[:, None]
    between, _ = _fits(own.values.loc[wells].to_numpy(), starts, sizes, np.zeros((len(wells), 20)))
    assert between == pytest.approx(total - within)


def test_right_maps_fit_and_more_so_beside_other_plates() -> None:
    truth = layout()
    alone = map_fit(plate(0, truth), truth, {})
    beside = map_fit(plate(0, truth), truth, expected_of([plate(1, truth), plate(2, truth)]))
    assert alone.p == alone.p_alone <= 0.05
    assert beside.p == pytest.approx(1 / (DRAWS + 1))
    assert beside.score > PLAIN > alone.score > 1
    assert map_fit(plate(0, truth), truth, {}) == alone


def test_too_little_to_say_is_no_number() -> None:
    once = {well: well for well in WELLS}
    fit = map_fit(plate(0, layout()), once, {})
    assert np.isnan([fit.p, fit.score, fit.p_alone]).all()
    few = {well: layout()[well] for well in WELLS[:6]}
    assert np.isnan(map_fit(plate(0, layout()), few, {}).p)
    only_elsewhere = map_fit(plate(0, layout()), once, {WELLS[0]: pd.Series(1.0, index=range(20))})
    assert np.isfinite(only_elsewhere.p)
    assert np.isnan(only_elsewhere.p_alone)


def test_other_maps_are_moved_as_their_words_say() -> None:
    maps = dict(other_maps({"B02": "a", "F08": "b"}, SHAPE, {"p2": {"B02": "b"}, "p3": {"F08": "b", "B02": "a"}}))
    assert maps == {
        "turned by 180 degrees": {"E07": "a", "A01": "b"},
        "shifted up by a row": {"A02": "a", "E08": "b"},
        "shifted down by a row": {"C02": "a"},
        "shifted left by a column": {"B01": "a", "F07": "b"},
        "shifted right by a column": {"B03": "a"},
        "replaced by that of plate p2": {"B02": "b"},
    }
    for words, moved in other_maps(layout(), SHAPE, {}):
        assert all(parse_well(well) is not None for well in moved), words


def index_of(name: str, profiles: Profiles, batch: str = "b1") -> pd.DataFrame:
    kinds = {well: "negcon" if treatment == "DMSO" else "trt" for well, treatment in profiles.treatments.items()}
    return pd.DataFrame({
        "Metadata_Batch": batch, "Metadata_Plate": name, "Metadata_Well": WELLS,
        "Metadata_Treatment": [profiles.treatments[well] for well in WELLS],
        "Metadata_pert_type": [kinds[well] for well in WELLS],
        **{f"QC_contrast_s{number}": profiles.values[number].to_numpy() for number in profiles.values},
    })  # fmt: skip


def turned(truth: dict[str, str]) -> dict[str, str]:
    return dict(other_maps(truth, SHAPE, {}))["turned by 180 degrees"]


@pytest.mark.parametrize("history", [False, True])
def test_a_turned_map_of_one_plate_is_named_and_the_others_are_left_alone(history: bool) -> None:  # noqa: FBT001
    truth = layout()
    batch = [plate(k, truth, declared=turned(truth) if k == 0 else None) for k in range(3)]
    index = pd.concat([index_of(f"p{k}", item) for k, item in enumerate(batch)])
    earlier = [index_of("p1", plate(9, truth), "b0")] if history else []
    found = map_columns(index, earlier, SHAPE)
    assert found["p0"]["map_other"] == "turned by 180 degrees"
    assert found["p0"]["map_other_score"] > max(PLAIN, found["p0"]["map_score"] + LEAD)
    for name in ("p1", "p2"):
        assert found[name]["map_p"] <= 0.01
        assert (found[name]["map_other"], np.isnan(found[name]["map_other_score"])) == ("", True)


def test_one_wrong_map_for_the_whole_batch_shows_against_history_and_else_in_the_controls() -> None:
    truth = layout()
    index = pd.concat([index_of(f"p{k}", plate(k, truth, declared=turned(truth))) for k in range(3)])
    beside = map_columns(index, [index_of("p1", plate(9, truth), "b0")], SHAPE)
    alone = map_columns(index, [], SHAPE)
    assert all(item["map_other"] == "turned by 180 degrees" for item in beside.values())
    assert all(item["map_p"] <= 0.01 for item in alone.values())  # the plates agree with each other
    assert all(item["map_p_alone"] > 0.05 for item in alone.values())


def test_a_shuffled_map_is_refused_where_the_other_plates_show_their_treatments() -> None:
    truth = layout()
    index = pd.concat([index_of(f"p{k}", plate(k, truth, declared=layout(5) if k == 0 else None)) for k in range(4)])
    found = map_columns(index, [], SHAPE)
    assert found["p0"]["map_p_sure"] > 0.01
    assert all(found[f"p{k}"]["map_p_sure"] <= 0.01 for k in (1, 2, 3))


def test_weak_treatments_are_no_wrong_map() -> None:
    """Plates on which nothing does anything: nobody can say, so nothing is refused."""
    refused = 0
    for seed in range(40):
        truth = layout(seed)
        index = pd.concat([index_of(f"p{k}", plate(10 * seed + k, truth, effect=0.0)) for k in range(2)])
        found = map_columns(index, [], SHAPE)
        refused += sum(item["map_other_score"] > PLAIN or item["map_p_sure"] > 0.01 for item in found.values())
    assert refused == 0
