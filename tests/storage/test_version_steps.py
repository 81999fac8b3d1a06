"""The version and archive steps: what is versioned, and what a later run may pair with."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servers import Moto

from coda.config import Params
from coda.contracts import BatchManifest, ModelRef, QualityReport, ReleaseRecord
from coda.contracts.fingerprints import StainFingerprints, Usual
from coda.contracts.ingest import IngestReport
from coda.contracts.manifest import FileEntry, Instrument, PlateEntry
from coda.errors import ContractError, IntegrityError
from coda.quality.fingerprints import FINGERPRINTS
from coda.registry import ReleaseLog
from coda.settings import Settings
from coda.steps.archive import archive
from coda.steps.version import read_revisions, version
from coda.storage.data_registry import create_registry


@pytest.fixture
def services(moto_server: Moto, tmp_path: Path) -> Settings:
    settings = moto_server.settings(tmp_path)
    create_registry(Path(settings.data_registry), settings.data_remote)
    return settings


def add_batch(dataset: Path, source: str, batch: str, verdict: str = "accepted") -> None:
    """A batch folder with everything but pixels."""
    folder = dataset / source / batch
    files = tuple(FileEntry(path=name, size_bytes=1, sha256="0" * 64) for name in ("map.csv", "load.csv"))
    plate = PlateEntry(plate="p1", plate_map="map.csv", load_data="load.csv", sites_per_well=1, files=files)
    BatchManifest(
        source=source, batch=batch, created_at=datetime(2026, 1, 1, tzinfo=UTC), channels=("DNA",), plate_wells=96,
        instrument=Instrument(name="scope", modality="widefield", pixel_size_um=0.6), plates=(plate,),
    ).write(folder / "manifest.json")  # fmt: skip
    digest = hashlib.sha256(batch.encode()).hexdigest()
    IngestReport(
        source=source, batch=batch, manifest_digest=digest, channels=("DNA",), fields_expected=1, fields_accepted=1,
        delivered=True, plates=(),
    ).write(folder / "ingest.json")  # fmt: skip
    QualityReport(
        source=source, batch=batch, manifest_digest=digest, suite_version="v1", verdict=verdict, sentence="So it is.",
        fields_expected=1, fields_accepted=1,
    ).write(folder / "quality.json")  # fmt: skip


def test_the_way_of_a_source_through_its_batches(services: Settings, tmp_path: Path, demo_params: Params) -> None:
    def dataset(*names: str, verdict: str = "accepted") -> Path:
        folder = tmp_path / "-".join(names)
        for name in names:
            add_batch(folder, "lab_b", name, verdict)
        return folder

    def put(folder: Path) -> list[str]:
        out = tmp_path / f"{folder.name}.json"
        made = version(folder, out, params=demo_params, settings=services, run_id="r")
        assert list(read_revisions(out)) == made
        return [item.batch for item in made]

    def earlier(folder: Path, most: int = 4) -> list[str]:
        adaptation = demo_params.adaptation.model_copy(update={"archive_batches": most})
        params = demo_params.model_copy(update={"adaptation": adaptation})
        out = tmp_path / f"archive-{folder.name}-{most}"
        found = archive(folder, out, params=params, settings=services)
        present = sorted(path.parent.name for path in out.glob("*/*/manifest.json"))
        assert present == sorted(item.batch for item in found)
        return [item.batch for item in found]

    assert earlier(dataset("w1")) == []
    assert (tmp_path / "archive-w1-4").is_dir()
    assert put(dataset("w3", "w2")) == ["w2", "w3"]
    mixed = dataset("w9")
    add_batch(mixed, "lab_b", "w8", "refused")
    assert put(mixed) == ["w9"]
    assert earlier(dataset("w1"), most=2) == ["w3", "w9"]
    assert earlier(dataset("w9", "w1")) == ["w2", "w3"]  # a repeated run sees what it saw the first time
    assert earlier(dataset("w1"), most=0) == []
    with pytest.raises(ContractError, match="nothing to version"):
        put(dataset("w7", verdict="refused"))


def test_a_lost_list_of_revisions_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"none\.json"):
        read_revisions(tmp_path / "none.json")


def test_the_archive_says_what_the_models_stains_look_like_where_its_release_does(
    services: Settings, tmp_path: Path, demo_params: Params
) -> None:
    add_batch(tmp_path / "new", "lab_b", "b1")
    log = ReleaseLog(services)

    def fetched() -> Path:
        out = tmp_path / f"earlier-{log.newest_number('default')}"
        archive(tmp_path / "new", out, params=demo_params, settings=services)
        return out / FINGERPRINTS

    assert not fetched().exists()
    ref = ModelRef(name="m", version=1, digest="0" * 64)
    old = ReleaseRecord(
        release_id="r", source="lab_a", created_at=datetime(2026, 1, 1, tzinfo=UTC), method="source", extractor=ref,
        head=ref, alignment="none", run_id="r", params_digest="0" * 64, gate_sentence="So it is.", approver="gate",
    )  # fmt: skip
    log.append(old, "default", action="promote", by="gate", reason="first", after=0)
    assert not fetched().exists()
    stains = StainFingerprints(
        channels=("DNA", "ER"), plates=1, fields=4, statistics={"focus_ER": Usual(usual=-2.5, spread=0.1)}
    )
    new = old.model_copy(update={"stains": stains})
    log.append(new, "default", action="promote", by="gate", reason="second", after=1)
    assert StainFingerprints.read(fetched()) == stains
