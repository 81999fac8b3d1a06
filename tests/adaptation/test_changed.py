"""What changed: which stains, plates, wells and fields are named, and what is compared with what."""

import numpy as np
import pytest
from changed_batches import TREATMENTS, compared, fields, folder

from coda.adaptation.changed import statistics_of, what_changed, write_changed
from coda.contracts import STAINS
from coda.contracts.changed import WhatChanged
from coda.plates.dataset import load_fields, open_batches


def test_the_stain_that_is_dim_stands_first():
    told = compared(dim="ER")
    by = {part.by: part for part in told.parts}
    assert set(by) == {*STAINS, "embedding"}
    assert min(by, key=lambda name: by[name].p_value) == "ER"
    assert by["ER"].p_value < 0.01
    assert by["ER"].separation > max(by["ER"].earlier)
    assert by["DNA"].p_value > 0.05
    assert told.whole.accuracy > 0.95
    assert told.against == ("b0", "b1", "b2", "b3")


def test_the_plate_out_of_focus_comes_first_with_its_wells():
    told = compared(bad_plate=1, plates=3)
    assert told.plates[0].plate == "b9_p1"
    assert told.plates[0].score > told.plates[1].score + 0.05
    assert len(told.plates[0].wells) == 16
    assert sum(plate.fields for plate in told.plates) == told.fields == 96


def test_pairs_are_of_one_treatment_each_and_their_scores_lie_apart():
    told = compared(dim="ER")
    assert len(told.pairs) == 6
    assert len({pair.treatment for pair in told.pairs}) == 6
    for pair in told.pairs:
        assert pair.now.batch == "b9"
        assert pair.before.batch in told.against
        assert pair.now.score > 0.9
        assert pair.before.score < 0.1


def test_treatments_that_one_side_lacks_are_left_out_where_there_are_enough_others():
    rng = np.random.default_rng(1)
    table, numbers, embedding = fields(rng, ["b0", "b1"])
    new = (table["Metadata_Batch"] == "b1") & (table["Metadata_Treatment"] == TREATMENTS[-1])
    table.loc[new, "Metadata_Treatment"] = "another"
    told = what_changed(folder("lab_b", "b1"), [folder("lab_b", "b0")], table, numbers, embedding)
    assert told.treatments == len(TREATMENTS) - 1
    assert told.wells == 2 * 14
    table.loc[table["Metadata_Batch"] == "b1", "Metadata_Treatment"] = "all others"
    told = what_changed(folder("lab_b", "b1"), [folder("lab_b", "b0")], table, numbers, embedding)
    assert told.treatments is None
    assert told.wells == 32
    assert told.pairs == (), "nothing of one treatment to show side by side"


def test_a_first_batch_says_that_there_is_nothing_to_compare_with():
    table, numbers, embedding = fields(np.random.default_rng(2), ["b0"])
    told = what_changed(folder("lab_b", "b0"), [], table, numbers, embedding)
    assert told.whole is None
    assert "accepted batch of this source" in told.why_not


def test_batches_of_another_microscope_are_not_compared_with():
    table, numbers, embedding = fields(np.random.default_rng(3), ["b0", "b1", "b2"])
    archive = [folder("lab_b", "b0", "Operetta"), folder("lab_b", "b1")]
    told = what_changed(folder("lab_b", "b2"), archive, table, numbers, embedding)
    assert told.against == ("b1",)
    assert told.whole.p_value is None
    assert "0 of 3" in told.why_not
    told = what_changed(folder("lab_b", "b2"), archive[:1], table, numbers, embedding)
    assert told.whole is None
    assert "this microscope" in told.why_not


def test_numbers_that_a_field_or_all_lack_change_nothing_else():
    table, numbers, embedding = fields(np.random.default_rng(4), ["b0", "b1", "b2", "b3"], dim="ER")
    numbers.iloc[3, 5] = np.nan
    numbers[[name for name in numbers if name.endswith("_AGP")]] = np.nan
    numbers["QC_saturation_ER"] = 0.0
    archive = [folder("lab_b", name) for name in ("b0", "b1", "b2")]
    told = what_changed(folder("lab_b", "b3"), archive, table, numbers, embedding)
    assert {part.by for part in told.parts} == {*STAINS, "embedding"} - {"AGP"}
    assert told.whole.accuracy > 0.9


@pytest.mark.filterwarnings("ignore")
def test_real_batches_leave_a_comparison_and_pictures_as_bright_as_recorded(datasets, params, tmp_path):
    earlier, batch = (open_batches(datasets[name])[0] for name in ("b1", "b2"))
    stored = load_fields([batch, earlier], STAINS[:3], params.crops.centre)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "features_base.npy", rng.normal(size=(len(stored), 8)).astype(np.float32))
    told = write_changed(tmp_path, [batch], [earlier], stored, np.ones(len(stored), dtype=bool), features=tmp_path)
    assert WhatChanged.read(tmp_path / "changed.json") == told
    assert (told.against, told.channels) == (("b1",), STAINS[:3])
    assert told.pairs
    pictures = np.load(tmp_path / "changed.npz")["images"]
    assert pictures.shape == (len(told.pairs), 2, 3, 32, 32)
    numbers = statistics_of([batch, earlier], STAINS[:3])
    pair = told.pairs[0]
    at = stored.table[["Metadata_Plate", "Metadata_Well"]].eq([pair.now.plate, pair.now.well]).all(axis=1).to_numpy()
    recorded = numbers.loc[at, ["QC_p5_DNA", "QC_p95_DNA"]].to_numpy()[0]
    np.testing.assert_allclose(np.percentile(pictures[0, 0, 0], [5, 95]), recorded, atol=2)
    write_changed(tmp_path, [batch], [], stored.take(np.arange(16)), np.ones(16, dtype=bool), features=tmp_path)
    assert not (tmp_path / "changed.npz").exists(), "pictures of an earlier attempt"
