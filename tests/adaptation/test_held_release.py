"""A release that the gate holds, through every step after it: what serves, what people read, and who lets it serve."""

from types import SimpleNamespace

import pandas as pd
import pytest
from release_steps import PROBABILITIES, bind, decided
from typer.testing import CliRunner

from coda.cli.registry import app as registry_app
from coda.contracts import ReleaseRecord, RunRecord
from coda.errors import ConfigError
from coda.registry import DEFAULT_SCOPE, ReleaseLog, list_versions
from coda.registry.drafts import WAITING
from coda.steps.adapt import adapt
from coda.steps.finish import finish
from coda.steps.judge import judge
from coda.steps.predict import predict
from coda.steps.report import report
from coda.steps.validate import validate

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides

RUN = "held-1"


@pytest.fixture(scope="module")
def held(folder, params, settings, datasets, released, moto_server):
    """Everything a run leaves whose release waits for Ada or Grace: the gate's own numbers, and a planted outcome."""
    own = settings.model_copy(
        update={"platform": moto_server.bucket().uri, "metrics_dir": str(folder / "metrics"), "pushgateway": ""}
    )
    log, work = ReleaseLog(own), folder / "held"
    log.append(released, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    candidates, dataset = work / "candidates", datasets["b1"]
    validate(dataset, params=params, settings=own)
    adapt(dataset, work / "none", candidates, params=params, settings=own, run_id=RUN)
    judged = judge(dataset, candidates, work / "judged.json", params=params, settings=own)
    planted = {"outcome": "hold", "chosen": "coda+aligned", "approvers": ("Ada", "Grace"), "fit_to_predict": True}
    words = {"held_because": ("Releases of lab_b are approved by a person.",), "sentence": "Ada or Grace must decide."}
    decision = judged.model_copy(update={**planted, **words})
    log.store.put(f"runs/{RUN}/gate.json", decision.to_json().encode())
    serving = bind(candidates, decision, work, params, own, RUN)
    files = {"gate": work / f"{RUN}-gate.json", "release": work / f"{RUN}.json"}
    predict(dataset, files["release"], work / "out", params=params, settings=own, gate=files["gate"])
    page = report(
        dataset, work / "report.html", params=params, settings=own, run_id=RUN, candidates=candidates,
        predictions=work / "out", **files,
    )  # fmt: skip
    record = finish(dataset, pipeline="adaptation", params=params, settings=own, run_id=RUN, **files)
    return SimpleNamespace(log=log, work=work, settings=own, serving=serving, page=page.read_text(), record=record)


def promote(settings, monkeypatch, by):
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(registry_app, ["promote", RUN, "--reason", "controls looked at", "--by", by])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception


def test_a_held_release_from_the_gate_to_the_person_who_lets_it_serve(held, released, monkeypatch):
    assert held.serving == released, "what serves goes on serving"
    table = pd.read_parquet(held.work / "out" / "field.parquet")
    assert set(table["release_id"]) == {"train-1"}
    assert table[PROBABILITIES].notna().all(axis=None)
    assert (held.record.outcome, held.record.sentence) == ("held", "Ada or Grace must decide.")
    stored = held.log.store.get(f"runs/{RUN}/run.json")
    assert RunRecord.parse(stored, "run.json").outcome == "held"
    for words in (
        "Waiting", "Ada or Grace", "approved by a person", f"coda registry promote {RUN} --reason", "proposed",
        "What guards the choice", "Where each number comes from", "decides", "ridge classifier",
        "never learned anything", "token statistics of all wells of each batch", "smoke-v1",
    ):  # fmt: skip
        assert words in held.page, words

    draft = ReleaseRecord.parse(held.log.store.get(f"runs/{RUN}/release.json"), "release.json")
    assert (draft.approver, draft.method) == (WAITING, "coda+aligned")
    made = next(item for item in list_versions(held.settings) if item.ref == draft.extractor)
    assert made.tags["gate_digest"] == draft.gate_digest
    with pytest.raises(ConfigError, match="Ada, Grace"):
        promote(held.settings, monkeypatch, "Mallory")
    assert held.log.current("lab_b") is None
    promote(held.settings, monkeypatch, "Ada")
    now = held.log.current("lab_b")
    assert (now.release_id, now.approver, now.method) == (RUN, "Ada", "coda+aligned")


def test_a_refused_source_without_a_release_keeps_none(held, params, tmp_path, moto_server, released, datasets):
    own = held.settings.model_copy(update={"platform": moto_server.bucket().uri})
    log = ReleaseLog(own)
    log.append(released, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    refused = decided("refuse", None).model_copy(update={"fit_to_predict": False})
    assert bind(held.work / "candidates", refused, tmp_path, params, own, "refused-1") == released
    assert log.current("lab_b") is None
    assert not log.store.exists("runs/refused-1/release.json")
