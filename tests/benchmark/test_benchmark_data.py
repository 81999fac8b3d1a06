"""Data of benchmarks: the same pixels as ingest stores, labels apart, and plates that are out of balance."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from coda.benchmark.data import from_datasets, simulated, simulated_digest
from coda.benchmark.simulation_plan import imaged_wells, simulation_plan
from coda.errors import ConfigError
from coda.plates.dataset import load_fields, open_batches
from coda.settings import Settings
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import Design, plan_experiment, write_labels
from coda.steps.ingest import ingest

SETTINGS = Settings(
    landing="s3://landing", platform="s3://platform", mlflow_uri="sqlite://", data_registry="x",
    data_remote="s3://platform/dvc", checkpoints="x",
)  # fmt: skip
DESIGN = {
    "mechanisms": 2, "compounds_per_mechanism": 2, "negcon_wells": 4, "poscon_wells": 1, "plate_wells": 24,
    "sites_per_well": 1, "field_px": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def plan(tiny):
    return simulation_plan(tiny(), {"lab_a": 2, "lab_b": 1}, plates=1, design=DESIGN)


@pytest.fixture(scope="module")
def labelled(plan, tmp_path_factory):
    return simulated(3, plan, tmp_path_factory.mktemp("cache"), processes=1)


@pytest.fixture(scope="module")
def dataset(plan, tiny, tmp_path_factory):
    """The same plates, delivered as TIFFs and ingested."""
    folder = tmp_path_factory.mktemp("ingested")
    experiment = plan_experiment(3, plan.design)
    uris = []
    for source in plan.sources:
        for batch in source.batch_names():
            plates = source.plate_names(batch)
            simulate_batch(experiment, source.name, batch, plates, folder / "delivered", workers=1)
            uris.append(str(folder / "delivered" / source.name / batch / "manifest.json"))
    write_labels(experiment, folder / "labels.csv")
    ingest(uris, folder / "dataset", params=tiny("ingest.workers=1"), settings=SETTINGS)
    return folder


def test_fields_are_the_ones_that_ingest_stores(labelled, dataset, tiny):
    params = tiny()
    stored = load_fields(open_batches(dataset / "dataset"), params.extractor.channels, params.crops.centre)
    assert stored.table["image_id"].tolist() == labelled.fields.table["image_id"].tolist()
    pd.testing.assert_frame_equal(stored.table, labelled.fields.table)
    np.testing.assert_array_equal(stored.images, labelled.fields.images)


def test_ingested_plates_and_their_label_table_give_the_same_data(labelled, dataset, tiny):
    found = from_datasets([dataset / "dataset"], dataset / "labels.csv", tiny())
    assert found.sources == labelled.sources == ("lab_a", "lab_b")
    assert found.labels == labelled.labels
    one = from_datasets([dataset / "dataset"], dataset / "labels.csv", tiny(), sources=["lab_b"])
    assert one.sources == ("lab_b",)
    assert one.digest != found.digest
    np.testing.assert_array_equal(one.fields.images, labelled.of("lab_b").images)


def test_the_fields_of_a_source_are_its_own_wherever_they_lie(labelled):
    fields = labelled.fields
    order = np.random.default_rng(0).permutation(len(fields))
    mixed = replace(labelled, fields=fields.take(order))
    for source in labelled.sources:
        together, apart = labelled.of(source), mixed.of(source)
        assert set(together.table["Metadata_Source"]) == set(apart.table["Metadata_Source"]) == {source}
        assert np.shares_memory(together.images, fields.images)
        back = np.argsort(order[(mixed.fields.table["Metadata_Source"] == source).to_numpy()])
        np.testing.assert_array_equal(apart.images[back], together.images)
        pd.testing.assert_frame_equal(apart.table.iloc[back].reset_index(drop=True), together.table)
    with pytest.raises(ConfigError, match="one of lab_a, lab_b"):
        labelled.of("lab_c")


def test_missing_sources_and_labels_are_told(dataset, tiny, tmp_path):
    with pytest.raises(ConfigError, match="batches of lab_c"):
        from_datasets([dataset / "dataset"], dataset / "labels.csv", tiny(), sources=["lab_a", "lab_c"])
    with pytest.raises(ConfigError, match="no such file"):
        from_datasets([dataset / "dataset"], dataset / "other.csv", tiny())
    with pytest.raises(ConfigError, match="at least one ingested batch"):
        from_datasets([tmp_path], dataset / "labels.csv", tiny())


def test_data_are_rendered_once_and_told_apart_by_their_digest(plan, labelled, tiny, tmp_path):
    first = simulated(3, plan, tmp_path, processes=1)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = simulated(3, plan, tmp_path, processes=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written
    np.testing.assert_array_equal(again.fields.images, labelled.fields.images)
    other = simulation_plan(tiny("ingest.low_percentile=1.0"), {"lab_a": 2, "lab_b": 1}, plates=1, design=DESIGN)
    workers = simulation_plan(tiny("ingest.workers=7"), {"lab_a": 2, "lab_b": 1}, plates=1, design=DESIGN)
    assert first.digest == again.digest == simulated_digest(3, plan) == simulated_digest(3, workers)
    assert len({first.digest, simulated_digest(4, plan), simulated_digest(3, other)}) == 3
    assert not any("moa" in column.lower() for column in first.fields.table)


def test_wells_can_hold_something_else_on_one_source(tiny):
    experiment = plan_experiment(3, Design.model_validate(DESIGN))
    by_mechanism = {}
    for compound in experiment.compounds:
        by_mechanism.setdefault(compound.mechanism, []).append(compound.name)
    (first, second), alone = (m for m in by_mechanism if m), by_mechanism
    wells = {"lab_b": {first: second, alone[second][0]: None}}
    plan = simulation_plan(tiny(), {"lab_a": 1, "lab_b": 1}, design=DESIGN, wells=wells)
    usual, changed = (imaged_wells(experiment, source) for source in plan.sources)
    assert len(usual) == 9
    assert len(changed) == 8
    held = [compound.name for _, compound in changed if compound.pert_type == "trt"]
    assert sorted(held) == sorted([*alone[second], alone[second][1]])
    assert all(well.compound == compound.name for well, compound in changed)
    assert all(well.treatment == f"{compound.name}_5uM" for well, compound in changed if compound.pert_type == "trt")
    unknown = simulation_plan(tiny(), {"lab_b": 1}, design=DESIGN, wells={"lab_b": {"no such thing": None}})
    with pytest.raises(ConfigError, match="no such thing"):
        imaged_wells(experiment, unknown.sources[0])


def test_several_processes_give_the_same_fields(plan, labelled, tmp_path):
    found = simulated(3, plan, tmp_path, processes=2)
    np.testing.assert_array_equal(found.fields.images, labelled.fields.images)
