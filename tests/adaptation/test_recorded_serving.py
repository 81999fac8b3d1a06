"""A release is served by what it was made with: today's parameters contradict it or give way, and never decide."""

from copy import deepcopy

import numpy as np
import pytest
from typer.testing import CliRunner

from coda.adaptation.abstain import mark_uncertain
from coda.adaptation.coda import adapt_extractor
from coda.adaptation.folder import write_served_as
from coda.adaptation.pairing_policy import PairingPolicy
from coda.adaptation.run import adapt_and_serve
from coda.adaptation.serving import Way, serve
from coda.cli.predict import app
from coda.config import load_params
from coda.config.load import changed
from coda.config.params import Compute
from coda.config.recorded import TRAINED, Fact, Today, flat
from coda.config.served_params import OF_TODAY, Groups, Serving
from coda.errors import ConfigError
from coda.plates.dataset import open_batches
from coda.plates.preparation import prepared, record_of
from coda.registry import DEFAULT_SCOPE, ReleaseLog
from coda.steps.adapt import adapt
from coda.steps.ingest import ingest
from coda.steps.judge import judge
from coda.steps.predict import predict
from coda.steps.publication import publications
from coda.steps.recorded_serving import require_fitting

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides

FILES = {"field.parquet", "well.parquet", "compound.parquet", "well.csv", "compound.csv", "predictions.json"}


@pytest.fixture
def own(settings, released, moto_server):
    """The release with all that is recorded today, behind a platform bucket of its own."""
    found = settings.model_copy(update={"platform": moto_server.bucket().uri})
    whole = released.model_copy(update={"min_top_over_chance": 2.0})
    ReleaseLog(found).append(whole, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    return found


@pytest.fixture
def given(released, tmp_path):
    return released.model_copy(update={"min_top_over_chance": 2.0}).write(tmp_path / "release.json")


@pytest.fixture
def bare(root, monkeypatch):
    """`coda predict` in the checkout, with these arguments and no others."""

    def call(settings, *arguments):
        for name, value in settings.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(root)
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


def tables(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_without_any_option_the_release_decides_and_the_bytes_are_the_pipelines(
    bare, datasets, own, given, released, params, tmp_path
):
    predict(datasets["b2"], given, tmp_path / "run", params=params, settings=own, publish=False, run_id="train-1")
    said = bare(own, datasets["b2"], "--out", tmp_path / "bare")
    assert tables(tmp_path / "bare") == tables(tmp_path / "run")
    model = f"{released.extractor.name} version {released.extractor.version}"
    assert f"crops.global_size: 16 is used, as recorded in config.json of {model}" in " ".join(said.split())
    with pytest.raises(ConfigError) as caught:
        bare(own, datasets["b2"], "--out", tmp_path / "no", "--set", "crops.global_size=32")
    (problem,) = caught.value.problems
    assert problem.found == "32 (--set crops.global_size=32)"
    assert problem.expected == f"16, recorded in config.json of {model}"
    assert not (tmp_path / "no").exists()
    with pytest.raises(ConfigError, match=r"(?s)min_top_over_chance.*release train-1"):
        bare(own, datasets["b2"], "--out", tmp_path / "no", "--set", "predict.min_top_over_chance=3.0")


class Watched:
    """Stands before parameters and notes which values are read."""

    def __init__(self, values, read, above=""):
        self._values, self._read, self._above = values, read, above

    def __getattr__(self, name):
        value = getattr(self._values, name)
        if callable(value):
            return value  # model_dump, by which values are held against the record and never used
        path = f"{self._above}{name}"
        if type(value).__module__ == Compute.__module__:
            return Watched(value, self._read, f"{path}.")
        self._read.add(path)
        return value


def test_serving_reads_nothing_of_todays_parameters_but_where_it_runs(datasets, own, given, root, tmp_path):
    read = set()
    today = Today(Watched(load_params(root / "params.yaml"), read))
    predict(datasets["b2"], given, tmp_path / "watched", params=today, settings=own, publish=False)
    assert read == {f"compute.{name}" for name in OF_TODAY}


def test_no_other_parameter_changes_a_byte(datasets, own, given, root, params, tmp_path):
    predict(datasets["b2"], given, tmp_path / "right", params=params, settings=own, publish=False, run_id="train-1")
    other = changed(
        load_params(root / "params.yaml"),
        {
            "crops.normalise": "image", "crops.eval_grid": 2, "crops.centre": 300, "compute.precision": "bfloat16",
            "compute.attention": "sdpa", "alignment.by": "plate", "alignment.wells": "negcon",
            "predict.min_top_over_chance": 1.1, "extractor.pool": "mean", "extractor.channels": ["RNA", "DNA", "AGP"],
        },
    )  # fmt: skip
    assert [1 for path, value in flat(other.model_dump(mode="json")).items() if value != Today(params).value(path)]
    predict(datasets["b2"], given, tmp_path / "other", params=Today(other), settings=own, publish=False)
    assert tables(tmp_path / "other") == tables(tmp_path / "right")


def test_what_the_run_kept_from_before_is_not_what_its_parameters_were_stated_for(
    datasets, own, given, params, tmp_path
):
    later = changed(params, {"predict.min_top_over_chance": 3.0})
    with pytest.raises(ConfigError, match="min_top_over_chance"):
        predict(datasets["b2"], given, tmp_path / "no", params=later, settings=own, publish=False, run_id="train-1")
    predict(datasets["b2"], given, tmp_path / "kept", params=later, settings=own, publish=False, run_id="adapt-9")
    predict(datasets["b2"], given, tmp_path / "right", params=params, settings=own, publish=False)
    assert tables(tmp_path / "kept") == tables(tmp_path / "right")


def test_a_published_prediction_is_replaced_by_a_person_with_a_reason_alone(
    bare, command, datasets, own, tmp_path, monkeypatch
):
    bare(own, datasets["b2"], "--publish", "--out", tmp_path / "first")
    bare(own, datasets["b2"], "--publish", "--out", tmp_path / "again", "--replace-because", "not needed")
    newer = lambda table, **given: mark_uncertain(table, **given).assign(remark="newer code")  # noqa: E731
    monkeypatch.setattr("coda.steps.predict.mark_uncertain", newer)
    with pytest.raises(ConfigError, match="nothing was published"):
        bare(own, datasets["b2"], "--publish", "--out", tmp_path / "second")
    with pytest.raises(ConfigError, match="without a reason"):
        bare(own, datasets["b2"], "--publish", "--replace-because", " ")
    because = ["--replace-because", "a remark was missing", "--by", "Ada"]
    bare(own, datasets["b2"], "--publish", "--out", tmp_path / "second", *because)
    store = ReleaseLog(own).store
    first, second = publications(store, "lab_b/b2", "train-1")
    for published, folder in ((first, "first"), (second, "second")):
        assert {name: published.read(store, name) for name in published.files} == tables(tmp_path / folder)
    assert (second.entry.by, second.entry.reason, second.entry.replaces) == ("Ada", "a remark was missing", 1)
    assert first.entry.served_as["crops.global_size"] == 16
    assert first.entry.served_as["compute.precision"] == "float32"


def test_a_state_is_not_adapted_with_other_crops(
    datasets, own, released, params, tiny, make_base, make_plates, tmp_path
):
    other, version = changed(params, {"crops.global_size": 24, "crops.local_size": 16}), released.extractor.version
    with pytest.raises(ConfigError) as caught:
        adapt(datasets["b2"], datasets["b1"], tmp_path / "out", params=other, settings=own, run_id="adapt-9")
    wrong = {item.where: (item.found, item.expected) for item in caught.value.problems}
    assert set(wrong) == {"crops.global_size", "crops.local_size"}
    assert wrong["crops.global_size"][0].startswith("24 (")
    assert wrong["crops.global_size"][1] == f"16, recorded in config.json of coda-extractor version {version}"
    assert not (tmp_path / "out" / "candidates.json").exists()
    pairing = PairingPolicy("coda", "batch", 1.0, "")
    for name, value in (("extractor.pool", "cls"), ("crops.centre", 30), ("compute.precision", "bfloat16")):
        with pytest.raises(ConfigError, match=f"(?s){name}.*the state that is adapted"):
            adapt_extractor(make_base().state, make_plates(batches=2), tiny(f"{name}={value}"), pairing, seed=0)


def test_the_gate_judges_by_what_the_candidates_were_served_with(datasets, own, params, tmp_path):
    adapt(datasets["b2"], datasets["b1"], tmp_path / "out", params=params, settings=own, run_id="adapt-9")
    judge(datasets["b2"], tmp_path / "out", tmp_path / "gate.json", params=params, settings=own)
    other = changed(params, {"alignment.by": "plate"})
    with pytest.raises(ConfigError, match=r"(?s)alignment.by.*plate.*batch, recorded in"):
        judge(datasets["b2"], tmp_path / "out", tmp_path / "no.json", params=other, settings=own)
    assert not (tmp_path / "no.json").exists()
    write_served_as(tmp_path / "out", {"alignment.by": Fact("plate", "a test")})
    with pytest.raises(ConfigError, match="a test"):
        judge(datasets["b2"], tmp_path / "out", tmp_path / "no.json", params=params, settings=own)


def test_pixels_that_were_prepared_in_another_way_are_refused(datasets, folder, params, settings, make_base, tmp_path):
    extractor = deepcopy(make_base().extractor)
    extractor.config[TRAINED] = {**extractor.config[TRAINED], **record_of(prepared(open_batches(datasets["b1"])))}
    assert require_fitting(open_batches(datasets["b2"]), extractor, "m") == []
    manifest = folder / "raw" / "lab_b" / "b2" / "manifest.json"
    other = changed(params, {"ingest.high_percentile": 99.0, "ingest.scaling_factor": 1.0})
    ingest([str(manifest)], tmp_path / "other", params=other, settings=settings)
    with pytest.raises(ConfigError) as caught:
        require_fitting(open_batches(tmp_path / "other"), extractor, "coda-extractor version 1")
    wrong = {item.where.rpartition(": ")[2] for item in caught.value.problems}
    assert wrong == {"ingest.high_percentile", "ingest.scaling_factor", "pixel size"}
    assert all("recorded in config.json of coda-extractor version 1" in item.expected for item in caught.value.problems)


def test_an_incumbent_is_measured_as_its_own_release_is_served(tiny, make_base, make_incumbent, make_plates, tmp_path):
    fields, params = make_plates(batches=1), tiny()
    by_plate = tiny("alignment.by=plate")
    groups = Groups(by="plate", wells="all")
    serving = Serving(params.crops, params.compute, groups, min_top_over_chance=2.0)
    incumbent = make_incumbent("standardise", serving=serving)
    everything = np.ones(len(fields), dtype=bool)
    adapt_and_serve(make_base(), fields, everything, tmp_path, params, seed=1, incumbent=incumbent)
    found = np.load(tmp_path / "incumbent" / "features.npy")
    way = Way("x", "standardise", incumbent.head.head, incumbent.head.source)
    own, runs = (serve(incumbent.extractor, [way], fields, values).ways["x"].features for values in (by_plate, params))
    np.testing.assert_allclose(found, own, atol=1e-5)
    assert np.abs(found - runs).max() > 1e-3, "the groups of an alignment decide"
