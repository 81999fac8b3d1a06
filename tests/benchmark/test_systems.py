"""The eight systems from end to end on tiny plates, and what a table makes of them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from coda.benchmark.adapting import Adapting, work
from coda.benchmark.classical_references import REFERENCES
from coda.benchmark.feature_scores import score_features
from coda.benchmark.jobs import run_jobs
from coda.benchmark.source_models import Training
from coda.benchmark.specs import loaded
from coda.benchmark.systems import SYSTEMS, lay_out, paired, score_table, summarise
from coda.benchmark.table2 import as_json, table2
from coda.benchmark.table3 import SYSTEMS as OF_TABLE_3
from coda.benchmark.table3 import table3
from coda.errors import ConfigError
from coda.evaluation.predictions.prediction_levels import compound_table, well_table
from coda.networks.artifact import folder_digest
from coda.training.labels import LabelList


@pytest.fixture(scope="module")
def result(setting, tmp_path_factory):
    return table2(setting, tmp_path_factory.mktemp("out"))


def test_all_systems_have_scores_on_every_seed_and_target(result, setting):
    assert all(outcome.result is not None for outcome in result.outcomes), [o.cause for o in result.outcomes]
    image = result.scores[(result.scores["level"] == "image") & (result.scores["metric"] == "accuracy")]
    paper = image[image["alignment"] == "none"]
    for seed in setting.seeds:
        own = paper[paper["seed"] == seed]
        assert sorted(own[own["target"] == "lab_b"]["system"]) == sorted(SYSTEMS)
        assert len(own[own["target"] == "lab_a"]) == 5
    ways = image[(image["target"] == "lab_b") & (image["alignment"] != "none")]
    measured = ways["system"] == "Classical profile"
    assert set(ways[~measured]["system"]) == {"Dual-model-DINO", "Dual-model-CB", "ODA", "CODA"}
    assert set(ways[~measured]["alignment"]) == {"coral", "standardise"}
    assert set(ways[measured]["alignment"]) == set(REFERENCES)


def test_scores_are_those_of_the_kept_predictions(result, setting):
    labels = loaded(setting.data[4]).labels
    checked = 0
    for outcome in result.outcomes:
        task = outcome.job.task
        if not isinstance(task, Adapting) or task.trained.seed != 4:
            continue
        for path in sorted(outcome.job.folder(setting.root).glob("*.parquet")):
            table = pd.read_parquet(path)
            assert not any("moa" in name or "mechanism" in name for name in table.columns)
            for level, rows in (
                ("image", table),
                ("well", well_table(table)),
                ("compound", compound_table(well_table(table))),
            ):
                known = rows[rows["Metadata_Compound"].isin(list(labels.compounds))]
                true, found = [labels.compounds[name] for name in known["Metadata_Compound"]], known["predicted"]
                for metric, value in (
                    ("accuracy", accuracy_score(true, found)),
                    ("macro_f1", f1_score(true, found, average="macro", zero_division=0)),
                ):
                    row = [
                        r
                        for r in outcome.result["scores"]
                        if (r["level"], r["metric"], r["alignment"]) == (level, metric, path.stem)
                    ]
                    assert row[0]["value"] == pytest.approx(value)
                    assert row[0]["n"] == len(known)
                    checked += 1
    assert checked == 6 * (9 + 2 * 4 + len(REFERENCES))


def test_features_are_scored_beside_what_heads_make_of_them(result):
    own = result.scores[(result.scores["level"] == "features") & (result.scores["target"] == "lab_b")]
    assert set(own["metric"]) == {"replicate_map", "retrieved", "nsc", "nscb"}
    assert set(own["system"]) == {"Dual-model-DINO", "Dual-model-CB", "ODA", "CODA", "Classical profile"}
    compared = own[own["metric"] != "replicate_map"]
    assert compared["value"].between(0, 1).all()
    assert (compared["n"] > 0).all()
    calibration = result.scores[result.scores["metric"] == "ece"]
    assert len(calibration) == len(result.scores[result.scores["metric"] == "macro_f1"])


def test_scores_of_features_are_those_of_well_means(make_table):
    compounds = [f"c{number // 8}" for number in range(64)]
    table = make_table(64, Compound=compounds, Treatment=compounds)
    table["Metadata_Batch"] = [f"b{number % 2}" for number in range(64)]
    table["Metadata_Plate"] = table["Metadata_Batch"]
    table["Metadata_Well"] = [f"A{number // 4 + 1:02d}" for number in range(64)]  # two fields a well and batch
    labels = LabelList({f"c{number}": f"moa{number // 2}" for number in range(8)})
    rng = np.random.default_rng(0)
    centre = np.repeat(rng.normal(size=(4, 6)), 2, axis=0) + rng.normal(size=(8, 6)) * 0.1
    features = centre[np.arange(64) // 8] + rng.normal(size=(64, 6)) * 0.02
    found = {row["metric"]: row for row in score_features(table, features, labels)}
    assert found["nsc"]["value"] == found["nscb"]["value"] == 1
    assert found["nsc"]["n"] == found["nscb"]["n"] == 16
    assert found["retrieved"]["value"] == 1
    assert found["retrieved"]["n"] == 8
    one = score_features(table.assign(Metadata_Batch="b0"), features, labels)
    assert {row["metric"]: row["n"] for row in one}["nscb"] == 0  # a single batch has no other


def test_in_domain_scores_are_of_a_batch_that_nothing_was_trained_on(result, setting):
    trainings = [outcome for outcome in result.outcomes if isinstance(outcome.job.task, Training)]
    assert len(trainings) == 10
    for outcome in trainings:
        for path in outcome.job.folder(setting.root).glob("in_domain_*.parquet"):
            assert set(pd.read_parquet(path)["Metadata_Batch"]) == {"b5"}


def test_a_second_run_does_no_work_and_table_3_takes_its_jobs_from_table_2(result, setting, tmp_path):
    events = []
    table2(setting, tmp_path / "again", report=events.append)
    table3(setting, tmp_path / "table3", report=events.append)
    assert {event.state for event in events} == {"kept"}
    page = (tmp_path / "table3" / "report.html").read_text()
    assert all(name in page for name in OF_TABLE_3)


def test_the_frozen_heads_are_those_of_the_training_after_everything(result, setting):
    for outcome in result.outcomes:
        if isinstance(outcome.job.task, Training) and outcome.job.task.model == "cb":
            for path in (outcome.job.folder(setting.root) / "heads").iterdir():
                folder_digest(path)  # raises when a byte has changed
    adapted = [o for o in result.outcomes if getattr(o.job.task, "method", "") == "adapted"]
    assert all(not (o.job.folder(setting.root) / "heads").exists() for o in adapted)


def test_adaptation_gives_the_same_whatever_the_target_labels_are(setting, tmp_path):
    """Label blindness: with the target's labels shuffled, adapted weights and predictions stay the same to the bit."""
    spec = setting.data[3]
    training = Training(spec, "lab_a", "cb", setting.params, 3, setting.root)
    coda = Adapting(training, "lab_b", "adapted", setting.params)
    run_jobs([training.job()], work, setting.root)
    first = coda.do(tmp_path / "true")  # not a kept job: with another number of threads, sums are added differently
    data = loaded(spec)
    names = sorted(data.labels.compounds)
    classes = [data.labels.compounds[name] for name in names]
    shuffled = replace(data.labels, compounds=dict(zip(names, classes[1:] + classes[:1], strict=True)))
    from coda.benchmark import specs

    specs._LOADED[spec.digest] = replace(data, labels=shuffled)
    try:
        again = coda.do(tmp_path / "shuffled")
    finally:
        specs._LOADED.clear()
    assert folder_digest(tmp_path / "shuffled" / "extractor") == folder_digest(tmp_path / "true" / "extractor")
    predictions = sorted(path.name for path in (tmp_path / "true").glob("*.parquet"))
    assert predictions
    for name in predictions:
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "shuffled" / name), pd.read_parquet(tmp_path / "true" / name)
        )
    assert again["scores"] != first["scores"]


def test_jobs_depend_on_what_they_read_and_on_nothing_else(setting, tiny):
    from tests.benchmark.conftest import SHORT

    def digests(*changes):
        params = tiny(*SHORT, *changes)
        jobs = lay_out(["Supervised", "CODA", "TTT"], {3: setting.data[3]}, ["lab_a"], ["lab_b"], params, setting.root)
        return {job.name.split(": ")[1]: job.digest for job in jobs}

    usual = digests()

    def changed(*changes):
        now = digests(*changes)
        return {name for name in usual if now[name] != usual[name]}

    coda, cb = "CODA, lab_a to lab_b", "Dual-model-CB on lab_a"
    assert changed("compute.threads=2") == changed("gate.bootstrap=17") == changed("seed=9") == set()
    assert changed("adaptation.budget.learning_rate=0.01") == {coda}
    assert changed("pretrain.learning_rate=0.01") == {cb, coda}
    assert changed("ttt.steps=3") == {"TTT, lab_a to lab_b"}
    assert changed("supervised.iterations=7") == {"Supervised on lab_a", "Supervised, lab_a to lab_b"}


def test_means_and_deviations_are_over_seeds_and_nothing_is_rounded():
    values = {0: 0.12345678, 1: 0.2, 2: 0.9}
    row = {"source": "a", "target": "b", "alignment": "none", "level": "image", "metric": "accuracy", "n": 4}
    scores = pd.DataFrame(
        [{**row, "seed": seed, "system": system, "value": value + plus} for seed, value in values.items()
         for system, plus in (("CODA", 0.05), ("ODA", 0.0))]
    )  # fmt: skip
    found = summarise(scores).set_index("system")
    assert found.loc["ODA", "mean"] == pytest.approx(np.mean(list(values.values())), abs=1e-15)
    assert found.loc["ODA", "sd"] == pytest.approx(np.std(list(values.values()), ddof=1), abs=1e-15)
    assert paired(scores, ("CODA", "none"), ("ODA", "none")).to_numpy() == pytest.approx([0.05] * 3)
    assert np.isnan(summarise(scores[scores["seed"] == 0])["sd"]).all()


def test_the_json_holds_everything_and_is_strict(result, setting, tmp_path):
    from coda.benchmark.benchmark_report import write_json

    path = write_json(tmp_path / "deep" / "table.json", as_json(result, setting))
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert len(content["scores"]) == len(result.scores)
    assert content["failed"] == []
    assert content["setting"]["seeds"] == [3, 4]


def test_a_system_that_is_not_there_is_named(setting, tmp_path):
    with pytest.raises(ConfigError, match=r"--system: found 'CODE'.*ODA-MAE"):
        table2(setting, tmp_path, systems=["CODA", "CODE"])


def test_score_table_passes_over_failed_jobs(result):
    broken = [replace(outcome, result=None) for outcome in result.outcomes]
    assert score_table(broken).empty
