"""`coda benchmark real`: held-out plates as targets, pseudo-compounds, gains over compounds, and the command."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from coda.benchmark.data import Labelled, from_datasets
from coda.benchmark.gains import MIN_COMPOUNDS, gain
from coda.benchmark.held_out_plates import HELD_OUT, HeldOutPlates, choose_held_out, divided
from coda.benchmark.pixel_shifts import seen_through
from coda.benchmark.real import real
from coda.benchmark.setting import Setting
from coda.benchmark.specs import ingested
from coda.cli.benchmark import app
from coda.errors import ConfigError
from coda.plates.fieldset import FieldSet
from coda.simulation.shifts import Shift
from coda.training.labels import LabelList
from tests.benchmark.conftest import SHORT
from tests.training.conftest import TINY

OPTICAL = Shift(kind="optical", strength=1)


@pytest.fixture(scope="module")
def spec(ingested_plates, short):
    plates = ingested([ingested_plates / "dataset"], ingested_plates / "labels.csv", short, ["lab_a", "lab_b"])
    return HeldOutPlates(plates, "lab_a", ("b3",), (OPTICAL,), 4)


def test_held_out_plates_are_a_target_and_nothing_of_them_is_trained_on(spec, ingested_plates, short):
    data = spec.load()
    all_ = from_datasets([ingested_plates / "dataset"], ingested_plates / "labels.csv", short)
    assert data.sources == ("lab_a", "lab_b", HELD_OUT, f"{HELD_OUT}, optical 1")
    assert set(data.of("lab_a").table["Metadata_Batch"]) == {"b1", "b2"}
    held = data.of(HELD_OUT)
    assert set(held.table["Metadata_Batch"]) == {"b3"}
    assert not set(held.table["image_id"]) & set(data.of("lab_a").table["image_id"])
    rows = (all_.fields.table["Metadata_Batch"] == "b3").to_numpy() & (all_.fields.table["Metadata_Source"] == "lab_a")
    np.testing.assert_array_equal(held.images, all_.fields.take(rows.to_numpy()).images)
    other = data.of(f"{HELD_OUT}, optical 1")
    np.testing.assert_array_equal(other.images, seen_through(held.images, held.table["image_id"].tolist(), OPTICAL))
    assert other.table.drop(columns="Metadata_Source").equals(held.table.drop(columns="Metadata_Source"))
    np.testing.assert_array_equal(data.of("lab_b").images, all_.of("lab_b").images)
    # images are there once
    assert len(data.fields.pool) == len(all_.fields)


def test_the_digest_names_all_that_the_data_depend_on(spec):
    others = [
        replace(spec, held_out=("b2",)), replace(spec, shifts=()), replace(spec, pseudo_compounds=0),
        replace(spec, shifts=(Shift(kind="optical", strength=0.5),)),
    ]  # fmt: skip
    assert len({spec.digest, *(other.digest for other in others)}) == 5


def table_of(wells):
    return pd.DataFrame(
        [
            {"Metadata_Source": "s", "Metadata_Batch": batch, "Metadata_Plate": f"{batch}p", "Metadata_Well": well,
             "Metadata_Compound": compound, "Metadata_Treatment": f"{compound}_5uM", "Metadata_pert_type": "trt"}
            for batch in ("b1", "b2") for well, compound in wells.items()
        ]
    )  # fmt: skip


@given(wells=st.integers(1, 12), compounds=st.integers(1, 6), least=st.integers(0, 5))
def test_wells_are_divided_alike_on_every_plate_and_evenly(wells, compounds, least):
    plan = {f"{chr(65 + c)}{w:02d}": f"cpd{c}" for c in range(compounds) for w in range(wells)}
    labels = LabelList({f"cpd{c}": "moa0" if c < 3 else "moa1" for c in range(compounds)} | {"elsewhere": "moa2"})
    table = table_of(plan)
    named, found = divided(table, labels, least)
    assert set(found.compounds) == set(named["Metadata_Compound"])
    assert "moa2" not in found.classes
    assert named.groupby(["Metadata_Well"])["Metadata_Compound"].nunique().max() == 1
    before = table["Metadata_Compound"]
    assert (named["Metadata_Compound"].str.partition("~")[0] == before).all()
    assert (named["Metadata_Treatment"].str.partition("~")[0] == table["Metadata_Treatment"]).all()
    for mechanism in found.classes:
        own = [name for name, moa in found.compounds.items() if moa == mechanism]
        whole = [name for name, moa in labels.compounds.items() if moa == mechanism and name in set(before)]
        assert len(own) >= min(least, len(whole) * wells)
        if len(whole) >= least:
            assert own == whole
        sizes = named[named["Metadata_Compound"].isin(own)].groupby(["Metadata_Compound"])["Metadata_Well"].nunique()
        assert sizes.max() - sizes.min() <= 1 or len(whole) >= least
        for compound in own:
            assert labels.compounds[compound.partition("~")[0]] == mechanism


def test_what_is_held_out_when_nothing_is_said_and_what_cannot_be():
    table = table_of({"A01": "x", "A02": "y"})
    assert choose_held_out(table, "s", ()) == ("b2",)
    assert choose_held_out(table, "s", ["b1p"]) == ("b1p",)
    one = table.assign(Metadata_Batch="b")
    assert choose_held_out(one, "s", ()) == ("b2p",)
    with pytest.raises(ConfigError, match="all of s"):
        choose_held_out(table, "s", ["b1", "b2"])
    with pytest.raises(ConfigError, match="b1, b2, b1p, b2p"):
        choose_held_out(table, "s", ["b3"])
    with pytest.raises(ConfigError, match="left to train"):
        choose_held_out(one.assign(Metadata_Plate="p"), "s", ())


def test_intervals_hold_the_gain_of_other_compounds_as_often_as_they_say():
    """500 draws of 24 compounds from a population whose gain is known."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(500):
        fields = rng.integers(10, 30, 24).astype(float)
        share = rng.normal(0.05, 0.15, 24)
        found = gain(share * fields, fields)
        inside += found.low <= 0.05 <= found.high
    assert 0.90 <= inside / 500 <= 0.98


def test_a_gain_without_spread_or_with_few_compounds_has_no_bootstrap():
    same = gain(np.full(8, 2.0), np.full(8, 10.0))
    assert (same.mean, same.low, same.high) == pytest.approx((0.2, 0.2, 0.2))
    few = gain(np.array([1.0, 0.0]), np.array([10.0, 10.0]))
    assert few.mean == pytest.approx(0.05)
    assert np.isnan(few.low)
    assert str(few) == "+5.0"
    assert str(gain(np.array([1.0, 0, 0, 0, 0, -3]), np.full(MIN_COMPOUNDS, 10.0))).startswith("-3.3 (")


def invoke(root, plates, out, *more):
    arguments = ["real", "--seeds", "0", "--work", str(out / "work"), "--out", str(out), "--processes", "1"]
    arguments += ["--params", str(root / "params.yaml"), "--overlay", str(root / "params" / "demo.yaml")]
    if plates is not None:
        arguments += ["--dataset", str(plates / "dataset"), "--labels", str(plates / "labels.csv")]
    settings = [part for change in (*TINY, *SHORT) for part in ("--set", change)]
    return CliRunner().invoke(app, [*arguments, *settings, *more])


def test_the_command_makes_one_page_of_all_targets_and_resumes(root, ingested_plates, tmp_path):
    asked = (
        "--source",
        "lab_a",
        "--shift",
        "optical:1",
        "--set",
        "split.by=plate",
        "--json",
        str(tmp_path / "all.json"),
    )
    found = invoke(root, ingested_plates, tmp_path, *asked)
    assert found.exit_code == 0, found.exception
    content = json.loads((tmp_path / "all.json").read_text())
    targets = [HELD_OUT, f"{HELD_OUT}, optical 1", "lab_b"]
    assert content["setting"]["targets"] == targets
    gains = pd.read_csv(tmp_path / "gains.csv")
    assert sorted(set(gains["target"])) == sorted(targets)
    scores = pd.read_csv(tmp_path / "real_scores.csv")
    image = scores[(scores["level"] == "image") & (scores["metric"] == "accuracy")]
    value = image.set_index(["system", "alignment", "target"])["value"]
    for row in gains.itertuples():
        reference = value["Dual-model-CB", "standardise", row.target]
        assert row.mean == pytest.approx(value[row.system, row.alignment, row.target] - reference)
    page = (tmp_path / "report.html").read_text()
    assert "wells of one compound" in page
    assert "unseen" in page
    assert (tmp_path / "examples.png").stat().st_size > 1000
    again = invoke(root, ingested_plates, tmp_path, *asked)
    assert again.exit_code == 0
    assert "started" not in again.output


def test_messages(root, ingested_plates, tmp_path):
    nothing = invoke(root, None, tmp_path)
    assert isinstance(nothing.exception, ConfigError)
    assert [problem.where for problem in nothing.exception.problems] == ["--dataset", "--source"]
    wrong = invoke(root, ingested_plates, tmp_path, "--source", "lab_a", "--shift", "focus:1")
    assert "photometric, optical, geometric" in str(wrong.exception)
    strange = invoke(root, ingested_plates, tmp_path, "--source", "lab_z")
    assert "lab_z" in str(strange.exception)


class RealCrops:
    """Crops of real fields of four cell types on four plates each; the type is the label."""

    digest = "real crops"

    def __init__(self, folder, make_table):
        self.folder, self.make_table = folder, make_table

    def load(self):
        pixels, rows = [], []
        for path in sorted(self.folder.glob("*/Plate[124]/B02_s1_w1.png")):
            stains = [np.asarray(Image.open(str(path).replace("_w1", f"_w{number}"))) for number in (1, 3, 4)]
            field = np.stack(stains)[:, ::2, ::2]  # 256 pixels of 1.3 um
            for place, (top, left) in enumerate(np.ndindex(4, 4)):
                pixels.append(field[:, 64 * top : 64 * top + 64, 64 * left : 64 * left + 64])
                cells, plate = path.parent.parent.name.partition("-")[0], path.parent.name
                rows.append((plate, f"{'ABCD'[top]}{left + 1:02d}", cells, f"{cells}/{plate}/{path.name[4:6]}/{place}"))
        plates, wells, cells, names = (list(column) for column in zip(*rows, strict=True))
        table = self.make_table(
            len(rows), Batch=plates, Plate=plates, Well=wells, Compound=cells, Treatment=cells, Source="rxrx1"
        )
        fields = FieldSet(np.stack(pixels), table.assign(image_id=names), ("DNA", "AGP", "RNA"))
        return Labelled(fields, LabelList({name: f"cells {name}" for name in set(cells)}), "crops", self.digest)


def test_cell_types_of_real_fields_are_told_apart_on_a_plate_that_nothing_learned_from(
    shared_data, make_table, tiny, tmp_path
):
    plates = RealCrops(shared_data / "images/rxrx1/train", make_table)
    params = tiny(*SHORT, "crops.centre=64", "split.by=plate")
    spec = HeldOutPlates(plates, "rxrx1", ("Plate4",), (OPTICAL,), 4)
    setting = Setting({0: spec}, ("rxrx1",), spec.targets, params, tmp_path / "work", 0.25, simulated=False)
    result = real(setting, tmp_path / "out", unseen=0.25)
    assert [outcome.cause for outcome in result.outcomes if outcome.result is None] == []
    own = result.scores[(result.scores["level"] == "image") & (result.scores["metric"] == "accuracy")]
    accuracy = own.set_index(["system", "alignment", "target"])["value"]
    assert accuracy["Classical profile", "none", HELD_OUT] > 0.75
    assert accuracy["Classical profile", "none", f"{HELD_OUT}, optical 1"] > 0.5
    counts = spec.load().fields.table.groupby("Metadata_Source")["Metadata_Compound"].nunique()
    assert counts.to_dict() == {"rxrx1": 16, HELD_OUT: 16, f"{HELD_OUT}, optical 1": 16}
