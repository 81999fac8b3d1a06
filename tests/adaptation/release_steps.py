"""A registered source release of random networks and two small batches, for tests of the steps after adaptation."""

from datetime import UTC, datetime

import pytest

from coda.contracts.gate import GateReport
from coda.contracts.release import DataRevision, ReleaseRecord
from coda.networks.alignment import fit_statistics
from coda.networks.extractor import save_extractor
from coda.networks.head import SOURCE_STATISTICS, save_head
from coda.networks.state import save_state
from coda.plates.dataset import load_fields, open_batches
from coda.registry import DEFAULT_SCOPE, Provenance, ReleaseLog, register_extractor, register_head
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import Design, plan_experiment
from coda.steps.ingest import ingest
from coda.steps.register_adaptation import register_adaptation
from coda.steps.release import release
from coda.steps.version import write_revisions
from coda.training.tokens import extract_tokens

DESIGN = Design(
    mechanisms=2, compounds_per_mechanism=2, plate_wells=24, negcon_wells=4, poscon_wells=0, sites_per_well=1,
    field_px=64,
)  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(scope="session")
def settings(moto_server, folder):
    return moto_server.settings(folder)


@pytest.fixture(scope="session")
def params(tiny, root):
    return tiny("ingest.workers=1", f"gate.policy={root / 'tests' / 'flow' / 'smoke_gate.yaml'}")


@pytest.fixture(scope="session")
def datasets(folder, params, settings):
    """A first batch and a second one, each in its own dataset folder."""
    experiment = plan_experiment(3, DESIGN)
    for batch in ("b1", "b2"):
        simulate_batch(experiment, "lab_b", batch, [f"{batch}_p1", f"{batch}_p2"], folder / "raw", workers=1)
        manifest = folder / "raw" / "lab_b" / batch / "manifest.json"
        ingest([str(manifest)], folder / batch, params=params, settings=settings)
    return {batch: folder / batch for batch in ("b1", "b2")}


@pytest.fixture(scope="session")
def released(folder, params, settings, datasets, make_base):
    """A source release of random networks, registered and promoted to the default."""
    base = make_base()
    fields = load_fields(open_batches(datasets["b1"]), base.extractor.channels, params.crops.centre)
    extra = {SOURCE_STATISTICS: fit_statistics(extract_tokens(base.extractor, fields, params)).to_bytes()}
    save_extractor(folder / "net" / "extractor", base.extractor)
    save_state(folder / "net" / "state", base.state)
    revision = DataRevision(source="lab_a", batch="b1", path="lab_a/b1", revision="0" * 40, digest="0.dir")
    origin = Provenance(run_id="train-1", source="lab_a", params_digest="0" * 64, data=(revision,))
    extractor = register_extractor(folder / "net" / "extractor", folder / "net" / "state", origin, settings=settings)
    heads = []
    for name, frozen in base.heads.items():
        save_head(folder / "net" / name, frozen.head, extra)
        heads.append(register_head(folder / "net" / name, extractor, origin, settings=settings))
    record = ReleaseRecord(
        release_id="train-1", source="lab_a", created_at=datetime.now(UTC), method="source", extractor=extractor,
        head=heads[0], alignment="none", heads=tuple(heads), run_id="train-1", params_digest="0" * 64,
        gate_sentence="", approver="gate",
    )  # fmt: skip
    ReleaseLog(settings).append(record, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    return record


PROBABILITIES = ["p_actin", "p_proteasome", "p_tubulin"]


def decided(outcome, chosen):
    return GateReport(
        source="lab_b", batch="b1", manifest_digest="0" * 64, policy_version="v", baseline="unadapted", candidates=(),
        outcome=outcome, chosen=chosen, sentence=f"{chosen} serves.",
    )  # fmt: skip


def bind(candidates, report, work, params, settings, run_id):
    """The register and the release step."""
    revision = DataRevision(source="lab_b", batch="b1", path="lab_b/b1", revision="0" * 40, digest="0.dir")
    report.write(work / f"{run_id}-gate.json")
    register_adaptation(
        candidates, work / f"{run_id}-gate.json", write_revisions(work / f"{run_id}-data.json", [revision]),
        work / f"{run_id}-draft.json", params=params, settings=settings, run_id=run_id,
    )  # fmt: skip
    return release(work / f"{run_id}-draft.json", work / f"{run_id}.json", settings=settings, run_id=run_id)
