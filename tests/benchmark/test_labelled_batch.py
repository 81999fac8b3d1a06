"""`coda labels score`: predictions against labels that became known."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score
from typer.testing import CliRunner

from coda.benchmark.labelled_batch import score_batch
from coda.cli.labels import app
from coda.errors import ConfigError, IntegrityError
from coda.evaluation.predictions.prediction_levels import compound_table, field_table, well_table
from coda.training.labels import LabelList

CLASSES = ("kinase", "tubulin")
LABELS = LabelList({f"c{number}": CLASSES[number % 2] for number in range(10)} | {"c10": "proteasome"})


@pytest.fixture
def predictions(tmp_path, make_table):
    """Twelve compounds on two plates, two fields a well; c10 has a mechanism of its own, c11 no label."""
    compounds = [f"c{number // 4}" for number in range(48)]
    rows = make_table(48, Compound=compounds, Treatment=compounds)
    rows["Metadata_Batch"] = "b1"
    rows["Metadata_Plate"] = [f"p{number // 2 % 2}" for number in range(48)]
    rows["Metadata_Well"] = [f"A{number // 4 + 1:02d}" for number in range(48)]
    probabilities = np.random.default_rng(0).dirichlet([1, 1], 48)
    probabilities[-4:] = np.nan
    fields = field_table(rows, probabilities, CLASSES)
    wells = well_table(fields)
    tables = {"field": fields, "well": wells, "compound": compound_table(wells)}
    folder = tmp_path / "predictions"
    folder.mkdir()
    files = {}
    for name, table in tables.items():
        table.assign(abstain_reason=["unsure" if k % 3 == 0 else "" for k in range(len(table))]).to_parquet(
            folder / f"{name}.parquet"
        )
        files[f"{name}.parquet"] = hashlib.sha256((folder / f"{name}.parquet").read_bytes()).hexdigest()
    (folder / "predictions.json").write_text(json.dumps({"release_id": "train-1", "files": files}))
    return folder


def labels_file(path, labels=LABELS):
    rows = [f"{name},{moa}" for name, moa in labels.compounds.items()]
    path.write_text("\n".join(["Metadata_Compound,moa", *rows]) + "\n")
    return path


def test_scores_are_scikit_learns_of_the_rows_that_can_be_scored(predictions):
    learned = LabelList({name: moa for name, moa in LABELS.compounds.items() if name not in ("c8", "c9")})
    found = score_batch(predictions, LABELS, learned)
    checked = 0
    for item in found.scores:
        table = pd.read_parquet(predictions / f"{item.level}.parquet")
        rows = table[table["Metadata_Compound"].isin([f"c{k}" for k in range(10)])]
        if item.rows == "no reason to abstain":
            rows = rows[rows["abstain_reason"] == ""]
        if item.rows.endswith("compounds"):
            rows = rows[rows["Metadata_Compound"].isin(["c8", "c9"]) == (item.rows == "unseen compounds")]
        true = [LABELS.compounds[name] for name in rows["Metadata_Compound"]]
        assert item.number == len(rows)
        assert item.accuracy.mean == pytest.approx(accuracy_score(true, rows["predicted"]))
        assert item.macro_f1 == pytest.approx(f1_score(true, rows["predicted"], average="macro", zero_division=0))
        assert np.isnan(item.accuracy.low) == (item.accuracy.compounds < 6)
        checked += 1
    assert checked == 12
    assert found.without_label == ("c11",)
    assert found.unknown == ("c10",)
    wells = pd.read_parquet(predictions / "well.parquet").query("Metadata_Compound in ['c1', 'c3', 'c5', 'c7', 'c9']")
    assert found.recall["tubulin"] == (len(wells), pytest.approx((wells["predicted"] == "tubulin").mean()))


def test_what_has_no_answer_is_counted_and_not_scored(predictions):
    more = LabelList({**LABELS.compounds, "c11": "kinase"})
    found = score_batch(predictions, more)
    assert found.unanswered == 2
    assert max(item.number for item in found.scores) == 40
    assert {item.rows for item in found.scores} == {"all", "no reason to abstain"}


def test_the_command_prints_scores_and_writes_all_numbers(predictions, tmp_path):
    arguments = ["score", str(predictions), "--labels", str(labels_file(tmp_path / "labels.csv"))]
    told = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "scores.json")], env={"COLUMNS": "80"})
    assert told.exit_code == 0, told.exception
    assert "Without a label (1): c11." in told.output
    assert "c10" in told.output
    assert max(map(len, told.output.splitlines())) <= 80
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["release_id"] == "train-1"
    assert written["scores"][0]["level"] == "field"


def test_predictions_that_are_not_whole_or_have_no_label_are_refused(predictions, tmp_path):
    with pytest.raises(ConfigError, match="kinase, tubulin"):
        score_batch(predictions, LabelList({"other": "kinase"}))
    (predictions / "well.parquet").write_bytes((predictions / "field.parquet").read_bytes())
    with pytest.raises(IntegrityError, match=r"well\.parquet"):
        score_batch(predictions, LABELS)
    with pytest.raises(ConfigError, match="coda predict"):
        score_batch(tmp_path / "nowhere", LABELS)
    missing = CliRunner().invoke(app, ["score", str(predictions), "--labels", str(tmp_path / "none.csv")])
    assert "no such file" in str(missing.exception)
