"""A small platform on which everything agrees: a source release, and a batch that was released with all it needs."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coda.contracts import ModelRef, QualityReport, ReleaseRecord, RunRecord
from coda.registry import DEFAULT_SCOPE, ReleaseLog, register_extractor, register_head
from coda.registry.mirror import mirror
from coda.settings import Settings
from coda.storage.objects import ObjectStore, store_for
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger, LedgerState
from tests.registry.conftest_registry import (
    adapted,
    empty_database,
    moto_server,
    provenance,
    tiny_params,
    trained,
)

__all__ = ["adapted", "empty_database", "moto_server", "tiny_params", "trained"]

VERSION = BatchVersion("lab_b", "b1", "ab" * 32, "lab_b/b1/manifest.json")
HEX = "cd" * 32


@dataclass(frozen=True)
class World:
    """Where all agrees until a test changes something."""

    settings: Settings
    folder: Path

    @property
    def store(self) -> ObjectStore:
        return store_for(self.settings.platform, self.settings)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, "trigger-1")

    def states(self, *states: str, version: BatchVersion = VERSION) -> LedgerState:
        """Write states of a batch version, after those that are there."""
        last = self.ledger.last(version)
        for state in states:
            last = self.ledger.append(version, state, after=last)
        return last

    def key(self, name: str) -> str:
        return f"runs/{VERSION.run_id}/{name}"

    def remove(self, prefix: str) -> None:
        for item in list(self.store.list(prefix)):
            self.store.delete(item.key)


@pytest.fixture(scope="session")
def template(moto_server, tmp_path_factory, empty_database, trained, adapted):
    """An MLflow database with the models of a training run and of one adaptation."""
    folder = tmp_path_factory.mktemp("template")
    shutil.copy(empty_database, folder / "mlflow.db")
    settings = moto_server.settings(folder)
    origin = provenance("train-1")
    base = register_extractor(trained.pretrained / "extractor", trained.pretrained / "state", origin, settings=settings)
    head = register_head(trained.heads / "none", base, origin, settings=settings)
    tuned = register_extractor(
        adapted / "extractor", adapted / "state", provenance(VERSION.run_id, "lab_b"), settings=settings,
        line=base.digest,
    )  # fmt: skip
    return folder / "mlflow.db", base, tuned, head


@pytest.fixture
def world(template, moto_server, tmp_path, monkeypatch):
    # what other programs keep in the machine's folder for temporary files is none of a test's business
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    database, base, tuned, head = template
    shutil.copy(database, tmp_path / "mlflow.db")
    made = World(moto_server.settings(tmp_path), tmp_path)
    store, log = made.store, ReleaseLog(made.settings)
    first, second = _release("train-1", "lab_a", base, head), _release(VERSION.run_id, "lab_b", tuned, head)
    for record, scope in ((first, "lab_a"), (first, DEFAULT_SCOPE), (second, "lab_b")):
        log.append(record, scope, action="promote", by="gate", reason="better", after=0)
        mirror(record, scope, settings=made.settings)
        store.put(f"runs/{record.run_id}/release.json", record.to_json().encode())
        store.put(f"runs/{record.run_id}/run.json", _run(record).to_json().encode())
    quality = QualityReport(
        source="lab_b", batch="b1", manifest_digest=VERSION.digest, suite_version="1", verdict="accepted",
        sentence="Good.", fields_expected=1, fields_accepted=1,
    )  # fmt: skip
    store.put(made.key("quality.json"), quality.to_json().encode())
    store.put(f"predictions/lab_b/b1/{second.release_id}/predictions.json", b"{}")
    store.put(f"reports/lab_b/b1/{VERSION.digest}/report.html", b"")
    made.ledger.claim(VERSION)
    made.states("landed", "claimed", "running", "released")
    return made


def _release(run_id: str, source: str, extractor: ModelRef, head: ModelRef) -> ReleaseRecord:
    return ReleaseRecord(
        release_id=run_id, source=source, created_at=datetime.now(UTC), method="source", extractor=extractor, head=head,
        alignment="none", heads=(head,), run_id=run_id, params_digest=HEX, gate_sentence="It is good.", approver="gate",
    )  # fmt: skip


def _run(record: ReleaseRecord) -> RunRecord:
    now = datetime.now(UTC)
    return RunRecord(
        run_id=record.run_id, pipeline="adaptation", started_at=now, finished_at=now, outcome="released",
        sentence="It is good.", batches=(), manifest_digests=(), code_version="c", params_digest=HEX, seed=0,
        models=(record.extractor, record.head), release_id=record.release_id,
    )  # fmt: skip
