"""What adaptation answered is published without a second reading, where the registered models prove it."""

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_steps import PROBABILITIES, bind, decided

import coda.steps.predict as predicting
from coda.adaptation.answers import ANSWERED, drawn
from coda.adaptation.serving import Way, serve
from coda.errors import IntegrityError
from coda.steps.adapt import adapt
from coda.steps.predict import predict

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides

WAYS = {"unadapted": ("none", 0), "aligned": ("standardise", 1), "coral": ("coral", 0)}


@pytest.fixture(scope="module")
def candidates(folder, params, settings, datasets, released):
    """What adapting to the second batch leaves, with the first as its archive."""
    out, given = folder / "answers", {"params": params, "settings": settings}
    adapt(datasets["b2"], datasets["b1"], out, run_id="answers-2", **given)
    return out


@pytest.fixture
def predicted(datasets, params, settings, released, tmp_path, monkeypatch, caplog):
    """Predicts the second batch with a release; returns the six files, and whether the fields were predicted anew."""
    caplog.set_level(logging.INFO, "coda.steps.predict")

    def run(record, name, **given):
        anew = []

        def watched(*args, **kwargs):
            anew.append(True)
            return serve(*args, **kwargs)

        monkeypatch.setattr(predicting, "serve", watched)
        out = tmp_path / name
        path = record.write(tmp_path / f"{name}.json")
        predict(
            given.pop("dataset", datasets["b2"]), path, out, params=params, settings=settings, publish=False, **given
        )
        return {file.name: file.read_bytes() for file in sorted(out.iterdir())}, bool(anew)

    return run


def of(released, name):
    alignment, head = WAYS[name]
    return released.model_copy(
        update={"release_id": f"r-{name}", "method": name, "head": released.heads[head], "alignment": alignment}
    )


def test_answers_of_a_batch_do_not_depend_on_what_is_served_beside_it(tiny, make_base, make_plates):
    base, fields = make_base(), make_plates(batches=2, sites=3)
    ways = [
        Way(name, alignment, frozen.head, frozen.source)
        for name, alignment, frozen in (
            ("raw", "none", base.heads["none"]), ("std", "standardise", base.heads["standardise"]),
        )
    ]  # fmt: skip
    first = (fields.table["Metadata_Batch"] == "b0").to_numpy()
    both, alone = (serve(base.extractor, ways, each, tiny()) for each in (fields, fields.take(first)))
    for way in ways:
        assert both.ways[way.name].probabilities[first].tobytes() == alone.ways[way.name].probabilities.tobytes()
    assert both.features[first].tobytes() == alone.features.tobytes()


@pytest.mark.parametrize("name", WAYS)
def test_what_adaptation_answered_is_what_the_release_predicts(name, candidates, released, predicted, caplog):
    record = of(released, name)
    expected, anew = predicted(record, "alone")
    assert anew
    found, anew = predicted(record, "with", candidates=candidates)
    assert not anew, "the fields were read a second time"
    assert found == expected
    assert f"The answers of '{name}' are taken over: 16 of 16 fields proved them." in caplog.text


def test_answers_of_a_model_that_was_adapted_and_registered_are_taken_over(
    candidates, params, settings, released, predicted, tmp_path
):
    record = bind(candidates, decided("release", "coda+aligned"), tmp_path, params, settings, "answers-2")
    expected, _ = predicted(record, "alone")
    found, anew = predicted(record, "with", candidates=candidates)
    assert (found, anew) == (expected, False)


def test_answers_that_the_registered_models_do_not_give_are_not_published(
    candidates, released, predicted, tmp_path, caplog
):
    expected, _ = predicted(of(released, "aligned"), "alone")
    shutil.copytree(candidates, tmp_path / "changed")
    path = tmp_path / "changed" / "aligned" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[3, PROBABILITIES] = np.roll(table.loc[3, PROBABILITIES].to_numpy(), 1)
    table.to_parquet(path)
    found, anew = predicted(of(released, "aligned"), "with", candidates=tmp_path / "changed")
    assert (found, anew) == (expected, True)
    assert "all fields are predicted anew" in caplog.text


def test_statistics_that_are_not_those_of_the_batch_are_found_out(candidates, released, predicted, tmp_path):
    expected, _ = predicted(of(released, "aligned"), "alone")
    shutil.copytree(candidates, tmp_path / "changed")
    base, adapted = (tmp_path / "changed" / "alignment" / name for name in ("base", "adapted"))
    groups = json.loads((base / "groups.json").read_text())
    assert groups == json.loads((adapted / "groups.json").read_text()) == {"lab_b/b2": "000.safetensors"}
    shutil.copy(adapted / "000.safetensors", base / "000.safetensors")
    found, anew = predicted(of(released, "aligned"), "with", candidates=tmp_path / "changed")
    assert (found, anew) == (expected, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / ANSWERED).write_text(json.dumps({"fields": "0" * 64})),
        lambda folder: (folder / ANSWERED).unlink(),
        lambda folder: edited(folder / "served_as.json", "alignment.by", {"value": "plate", "where": "a test"}),
    ],
    ids=["other fields", "fields that nobody noted", "other groups"],
)
def test_answers_about_something_else_are_left(change, candidates, released, predicted, tmp_path):
    shutil.copytree(candidates, tmp_path / "changed")
    change(tmp_path / "changed")
    expected, _ = predicted(of(released, "aligned"), "alone")
    found, anew = predicted(of(released, "aligned"), "with", candidates=tmp_path / "changed")
    assert (found, anew) == (expected, True)


def edited(path, name, value):
    content = json.loads(path.read_text())
    assert content[name]["value"] != value["value"]
    path.write_text(json.dumps({**content, name: value}))


def test_another_batch_is_predicted_anew(candidates, datasets, released, predicted):
    _, anew = predicted(of(released, "aligned"), "other", candidates=candidates, dataset=datasets["b1"])
    assert anew


def test_answers_that_are_not_whole_are_an_error(candidates, released, predicted, tmp_path):
    shutil.copytree(candidates, tmp_path / "changed")
    (tmp_path / "changed" / "aligned" / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="aligned are not whole"):
        predicted(of(released, "aligned"), "with", candidates=tmp_path / "changed")


@given(sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=6), seed=st.text(max_size=8))
def test_a_sample_is_drawn_from_each_plate(sizes, seed):
    plates = np.repeat([f"p{number}" for number in range(len(sizes))], sizes)
    table = pd.DataFrame({"Metadata_Source": "lab", "Metadata_Batch": "b", "Metadata_Plate": plates})
    rows = drawn(table, seed)
    assert list(rows) == sorted(set(rows))
    found = pd.Series(plates[rows]).value_counts()
    for number, size in enumerate(sizes):
        assert found[f"p{number}"] == min(size, max(8, round(size / 64)))
    assert list(drawn(table, seed)) == list(rows)
