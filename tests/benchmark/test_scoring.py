"""Scores of compounds that the head has learned from and of those that it has not, against scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from coda.benchmark.adapting import work
from coda.benchmark.jobs import run_jobs
from coda.benchmark.score_tables import present, recall_table
from coda.benchmark.scoring import RECALL, UNSEEN, score_predictions, unseen_compounds
from coda.benchmark.specs import loaded
from coda.benchmark.systems import lay_out, summarise
from coda.benchmark.table2 import matrices
from coda.evaluation.predictions.prediction_levels import compound_table, field_table, well_table
from coda.networks.artifact import extra_file
from coda.networks.head import LABELS
from coda.training.labels import LabelList

CLASSES = ("actin", "kinase", "tubulin")
COMPOUNDS = LabelList({f"c{number}": CLASSES[number % 3] for number in range(12)})


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_a_share_of_every_mechanism_is_kept_back_and_never_all_of_it(share: float) -> None:
    found = unseen_compounds(COMPOUNDS, share)
    per_class = [sum(COMPOUNDS.compounds[name] == moa for name in found) for moa in CLASSES]
    assert per_class == [0 if share == 0 else min(3, max(1, round(4 * share)))] * 3
    turned = LabelList(dict(reversed(COMPOUNDS.compounds.items())))
    assert unseen_compounds(turned, share) == found, "the order of the table does not matter"
    assert unseen_compounds(LabelList({"one": "a", "two": "b", "three": "b"}), 0.5) <= {"two", "three"}


def predictions(seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = [
        {
            "image_id": f"{plate}-{number}-{site}", "Metadata_Source": "lab", "Metadata_Batch": "b",
            "Metadata_Plate": f"p{plate}", "Metadata_Well": f"A{number:02d}", "Metadata_Site": site,
            "Metadata_Compound": f"c{number}", "Metadata_Treatment": f"c{number}", "Metadata_Dose_uM": 5.0,
            "Metadata_pert_type": "trt",
        }
        for plate in range(2) for number in range(12) for site in range(2)
    ]  # fmt: skip
    return field_table(pd.DataFrame(rows), random.dirichlet(np.ones(3), len(rows)).astype(np.float32), CLASSES)


def test_scores_of_seen_and_unseen_compounds_are_those_of_scikit_learn() -> None:
    fields, unseen = predictions(), unseen_compounds(COMPOUNDS, 0.25)
    scores = {(row["level"], row["metric"]): row for row in score_predictions(fields, COMPOUNDS, CLASSES, unseen)}
    wells = well_table(fields)
    for level, table in (("image", fields), ("well", wells), ("compound", compound_table(wells))):
        for name, new in ((level, False), (level + UNSEEN, True)):
            own = table[table["Metadata_Compound"].isin(unseen) == new]
            true = own["Metadata_Compound"].map(COMPOUNDS.compounds)
            assert scores[name, "accuracy"]["n"] == len(own)
            assert scores[name, "accuracy"]["value"] == pytest.approx(accuracy_score(true, own["predicted"]))
            expected = f1_score(true, own["predicted"], average="macro", zero_division=0)
            assert scores[name, "macro_f1"]["value"] == pytest.approx(expected)
            recalls = recall_score(true, own["predicted"], labels=CLASSES, average=None)
            for moa, recall in zip(CLASSES, recalls, strict=True):
                assert scores[name, RECALL + moa]["value"] == pytest.approx(recall)
    alone = score_predictions(fields, COMPOUNDS, CLASSES)
    assert not any(UNSEEN in row["level"] for row in alone)
    assert next(row["n"] for row in alone if row["level"] == "image" and row["metric"] == "accuracy") == len(fields)


@pytest.fixture(scope="module")
def outcomes(setting):
    jobs = lay_out(["Classical profile"], setting.data, ["lab_a"], ["lab_b"], setting.params, setting.root, 0.25)
    return jobs, run_jobs(jobs, work, setting.root)


def test_no_head_learns_from_a_compound_that_is_kept_back(outcomes, setting) -> None:
    jobs, results = outcomes
    training = jobs[0]
    labels = loaded(training.task.data).labels
    unseen = unseen_compounds(labels, 0.25)
    assert unseen
    folder = training.folder(setting.root) / "heads" / "classical"
    learned = set(json.loads(extra_file(folder, LABELS))["compounds"])
    assert learned
    assert learned.isdisjoint(unseen)
    levels = {row["level"] for result in results for row in result["scores"]}
    assert {"image", "compound", "image" + UNSEEN, "compound" + UNSEEN} <= levels
    assert training.digest != lay_out(["Classical profile"], setting.data, ["lab_a"], ["lab_b"], setting.params,
                                      setting.root)[0].digest  # fmt: skip


def test_tables_of_unseen_compounds_and_of_mechanisms_follow(outcomes, setting) -> None:
    _, results = outcomes
    shared = {"seed": 3, "source": "lab_a", "system": "Classical profile"}
    scores = pd.DataFrame([{**shared, **row} for result in results for row in result["scores"]])
    summary = summarise(scores)
    rows = present(summary, ["Classical profile"], ("none",))
    names = [table.name for table in matrices(summary, "lab_a", setting, rows, "table2")]
    assert "table2_lab_a_image_unseen_accuracy" in names
    seen = summary[~summary["level"].str.endswith(UNSEEN)]
    assert not any("unseen" in table.name for table in matrices(seen, "lab_a", setting, rows, "table2"))
    table = recall_table(summary, "lab_a", rows).values
    own = scores[(scores["target"] == "lab_b") & (scores["level"] == "image") & (scores["alignment"] == "none")]
    for moa in [name for name in table.columns if name not in ("system", "alignment")]:
        assert table[moa].iloc[0] == pytest.approx(own[own["metric"] == RECALL + moa]["value"].mean())
