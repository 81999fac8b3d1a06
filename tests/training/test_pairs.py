"""Partners: never of the same batch, never the same image, and a documented answer when there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.errors import ConfigError
from coda.training.pairs import PairSampler, pairable_share

layouts = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2), st.sampled_from(["trt", "negcon", "empty"])),
    min_size=1,
    max_size=40,
)


def table_of(make_table, rows):
    return make_table(
        len(rows),
        Treatment=[f"t{row[0]}" for row in rows],
        Batch=[f"b{row[1]}" for row in rows],
        Plate=[f"p{row[2]}" for row in rows],
        pert_type=[row[3] for row in rows],
    )


def allowed_by_search(table, anchor, by):
    """All partners of one anchor by looking at every other field: the best level that has any."""
    usable = table[(table["Metadata_pert_type"] != "empty") & (table.index != anchor)]
    me = table.loc[anchor]
    same = usable[usable["Metadata_Treatment"] == me["Metadata_Treatment"]]
    other_batch = same[same["Metadata_Batch"] != me["Metadata_Batch"]]
    other_plate = same[
        (same["Metadata_Batch"] != me["Metadata_Batch"]) | (same["Metadata_Plate"] != me["Metadata_Plate"])
    ]
    levels = [other_batch, other_plate, same] if by == "batch" else [other_plate, same]
    for level in levels:
        if len(level):
            return set(level.index)
    return {anchor}


@settings(max_examples=60, deadline=None)
@given(layouts, st.sampled_from(["batch", "plate"]), st.integers(0, 1000))
def test_every_partner_is_one_that_a_search_allows(make_table, tiny, rows, by, seed):
    table = table_of(make_table, rows)
    pairs = tiny(f"pairs.by={by}", "pairs.control_share=1.0").pairs
    if all(row[3] == "empty" for row in rows):
        with pytest.raises(ConfigError):
            PairSampler(table, pairs)
        return
    sampler = PairSampler(table, pairs)
    anchors, partners = sampler.batch(seed, 0, 25)
    for anchor, partner in zip(anchors, partners, strict=True):
        assert partner in allowed_by_search(table, anchor, by)


def test_all_allowed_partners_are_drawn_evenly(make_table, tiny):
    table = make_table(8, Treatment="t", Batch=["a", "a", "b", "b", "b", "c", "c", "c"], Plate="p")
    sampler = PairSampler(table, tiny().pairs)
    drawn = sampler.partners(np.full(6000, 3), seed=1, iteration=0)
    counts = np.bincount(drawn, minlength=8)
    assert counts[[2, 3, 4]].sum() == 0
    assert counts[[0, 1, 5, 6, 7]].min() > 1080
    assert counts[[0, 1, 5, 6, 7]].max() < 1320


def test_an_epoch_holds_every_treated_field_once_and_caps_controls(make_table, tiny):
    table = make_table(
        40, pert_type=["trt"] * 18 + ["negcon"] * 20 + ["empty"] * 2, Treatment=["t"] * 18 + ["DMSO"] * 22
    )
    sampler = PairSampler(table, tiny("pairs.control_share=0.1").pairs)
    assert sampler.fields_per_epoch == 20
    first, second = sampler.epoch(0, 0), sampler.epoch(0, 1)
    for rows in (first, second):
        assert sorted(row for row in rows if row < 18) == list(range(18))
        assert len({row for row in rows if 18 <= row < 38}) == 2
    assert list(first) != list(second)


def test_batches_run_through_epochs_without_a_gap(make_table, tiny):
    sampler = PairSampler(make_table(10, Treatment="t"), tiny().pairs)
    stream = np.concatenate([sampler.batch(3, iteration, 4)[0] for iteration in range(5)])
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))


@settings(max_examples=30)
@given(size=st.integers(1, 25), order=st.lists(st.integers(0, 12), min_size=1, max_size=30), seed=st.integers(0, 3))
def test_a_batch_is_set_by_seed_and_number_alone(make_table, tiny, size, order, seed):
    """Whatever was drawn before: epochs that are kept change no row. The oracle joins epochs that nothing has kept."""
    table = make_table(10, Treatment="t", Batch=["a", "b"] * 5)
    sampler = PairSampler(table, tiny().pairs)
    fresh = PairSampler(table, tiny().pairs)
    stream = np.concatenate([fresh.epoch(seed, number) for number in range(13 * size // 10 + 2)])
    for number in order:
        anchors, partners = sampler.batch(seed, number, size)
        assert list(anchors) == list(stream[number * size : (number + 1) * size])
        assert list(partners) == list(sampler.partners(anchors, seed, number))


def test_an_epoch_is_drawn_once_though_batches_are_read_ahead(make_table, tiny, monkeypatch):
    sampler = PairSampler(make_table(40, Treatment="t"), tiny().pairs)
    drawn = []
    real = sampler.epoch
    monkeypatch.setattr(sampler, "epoch", lambda seed, number: drawn.append(number) or real(seed, number))
    for iteration in range(30):
        for ahead in range(3):
            sampler.batch(0, iteration + ahead, 8)
    assert drawn == list(range(7))  # 32 batches of 8 are 6.4 epochs of 40


def test_error_policy_names_every_treatment_without_partner(make_table, tiny):
    table = make_table(4, Treatment=["x", "y", "z", "z"], Batch=["a", "b", "a", "b"])
    with pytest.raises(ConfigError) as caught:
        PairSampler(table, tiny("pairs.no_partner=error").pairs)
    assert [problem.where for problem in caught.value.problems] == ["treatment x", "treatment y"]
    assert "other_plate" in caught.value.problems[0].remedy


def test_policies_for_a_treatment_in_one_batch(make_table, tiny):
    table = make_table(
        5, Treatment=["x", "x", "x", "y", "y"], Batch=["a", "a", "a", "a", "b"], Plate=["1", "1", "2", "1", "1"]
    )
    others = PairSampler(table, tiny("pairs.no_partner=other_plate").pairs)
    assert set(others.partners(np.zeros(30, dtype=np.intp), 0, 0)) == {2}
    assert others.report.without_partner == ("x",)
    assert others.report.fallbacks == {"batch": 2, "plate": 3, "field": 0, "itself": 0}
    same = PairSampler(table, tiny("pairs.no_partner=same_image").pairs)
    assert set(same.partners(np.zeros(30, dtype=np.intp), 0, 0)) == {0}
    dropped = PairSampler(table, tiny("pairs.no_partner=drop").pairs)
    assert sorted(dropped.epoch(0, 0)) == [3, 4]


def test_no_pairing_gives_the_image_itself(make_table, tiny):
    sampler = PairSampler(make_table(12), tiny("pairs.by=none").pairs)
    anchors, partners = sampler.batch(0, 0, 12)
    assert list(anchors) == list(partners)


def test_pairable_share_leaves_controls_out(make_table):
    table = make_table(
        6, Treatment=["x", "x", "y", "DMSO", "DMSO", ""], Batch=["a", "b", "a", "a", "b", "a"],
        pert_type=["trt", "trt", "trt", "negcon", "negcon", "empty"],
    )  # fmt: skip
    assert pairable_share(table) == pytest.approx(2 / 3)
    assert pairable_share(table[3:]) == 0.0


def test_anchors_can_be_restricted_while_partners_are_not(make_table, tiny):
    table = make_table(6, Treatment="t", Batch=["new", "new", "old", "old", "old", "old"])
    sampler = PairSampler(table, tiny().pairs, anchors=np.array([True, True, False, False, False, False]))
    assert sorted(sampler.epoch(0, 0)) == [0, 1]
    assert set(sampler.partners(np.zeros(50, dtype=np.intp), 0, 0)) == {2, 3, 4, 5}


def test_training_without_pairs_across_batches_is_told(make_table, tiny):
    """One batch of two is held out: no pair is left, and a share in a table of numbers is easily not seen."""
    table = make_table(6, Treatment=["a", "b", "c", "a", "b", "c"], Batch=["b1"] * 6, Plate=["p1"] * 6)
    pairs = tiny("pairs.by=batch", "pairs.no_partner=same_image").pairs
    [told] = PairSampler(table, pairs).report.remarks()
    assert told.startswith("None of the treated fields have a partner of their treatment in another batch")
    assert "6 of 6 fields were paired with another view of themselves" in told
    # a method of single images asks for no pairs, whatever the parameters say of pairs
    assert PairSampler(table, pairs.model_copy(update={"by": "none"})).report.remarks() == []
    both = make_table(4, Treatment=["a", "b", "a", "b"], Batch=["b1", "b1", "b2", "b2"], Plate=["p1", "p1", "p2", "p2"])
    assert PairSampler(both, pairs).report.remarks() == []
