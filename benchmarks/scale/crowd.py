"""What a trigger meets after years: many batches in the landing prefix, many versions in the ledger; and large ones."""

import hashlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Literal

from coda.contracts import BatchManifest, ModelRef, PointerEntry, ReleaseRecord
from coda.contracts.manifest import MOST_INLINE, FileEntry, PlateEntry, version_of
from coda.errors import CodaError
from coda.local.environment import choose
from coda.local.services import sqlite_address
from coda.plates.file_lists import written_list
from coda.registry import ReleaseLog
from coda.registry.mlflow_client import connect
from coda.registry.versions import EXTRACTOR, HEAD
from coda.settings import Settings
from coda.simulation.laboratories import find_laboratory
from coda.storage.objects import store_for
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger

BATCH_OBJECTS = 100
"""Objects of one batch below the landing prefix, its manifest among them."""

SOURCES = 20
BLOCK = 20_000
IMAGE_BYTES = 1000
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
WELLS: Literal[384] = 384
SITES = 9
LANDING, PLATFORM = "landing", "platform"

Object = tuple[str, str | None, int]
"""Key, text or none, size where there is no text."""


@contextmanager
def crowded_store() -> Iterator[str]:
    """Give the endpoint of an empty store, which ends with this; this process's services are then there alone."""
    command = [sys.executable, "-m", "benchmarks.scale.crowded_store"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        port = process.stdout.readline().strip() if process.stdout is not None else ""
        if not port.isdecimal():
            raise CodaError("The object store of the benchmark did not start.")
        endpoint = f"http://127.0.0.1:{port}"
        choose(settings_at(endpoint).environment | CREDENTIALS)
        try:
            yield endpoint
        finally:
            process.communicate()


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "embedded", "AWS_SECRET_ACCESS_KEY": "embedded", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
}  # fmt: skip


def settings_at(endpoint: str, models: Path | None = None) -> Settings:
    """Return settings with this store and nothing else; with MLflow in a folder, if one is given."""
    return Settings(
        landing=f"s3://{LANDING}", platform=f"s3://{PLATFORM}", s3_endpoint=endpoint,
        mlflow_uri="sqlite://" if models is None else sqlite_address(models / "mlflow.db"),
        mlflow_artifacts=None if models is None else (models / "artifacts").as_uri(),
        data_registry="none", data_remote=f"s3://{PLATFORM}/dvc", checkpoints="none",
    )  # fmt: skip


def load(endpoint: str, bucket: str, objects: Iterable[Object]) -> int:
    """Put objects into the store, and return how many there were."""
    count, waiting = 0, iter(objects)
    while block := list(islice(waiting, BLOCK)):
        body = json.dumps({"bucket": bucket, "objects": block}).encode()
        _post(f"{endpoint}/-/load", body)
        count += len(block)
    return count


def counts(endpoint: str) -> dict[str, int]:
    """Return the requests since this was last asked, by kind, and the bytes of the answers."""
    with urllib.request.urlopen(f"{endpoint}/-/counts") as answer:  # noqa: S310  an address of this process's own
        return dict(json.loads(answer.read()))


def small_batch(number: int) -> tuple[BatchVersion, list[Object]]:
    """Return one of many batches: what the ledger calls it, and its objects below the landing prefix."""
    source, batch = f"site_{number % SOURCES:02d}", f"b{number:06d}"
    images = [f"images/{batch}_p1/r{place:04d}.tiff" for place in range(BATCH_OBJECTS - 3)]
    manifest = _manifest(source, batch, [_plate(f"{batch}_p1", images, number)])
    files = manifest.plates[0].files
    objects: list[Object] = [(f"{source}/{batch}/{file.path}", None, file.size_bytes) for file in files]
    key = f"{source}/{batch}/manifest.json"
    return BatchVersion(source, batch, manifest.digest(), key), [(key, manifest.to_json(), 0), *objects]


@dataclass(frozen=True)
class LargeBatch:
    """A batch of plates of 17,280 images (384 wells, 9 fields, 5 stains) with names as JUMP has them.

    Attributes:
        manifest: Its manifest, as a producer writes it.
        lists: Path beside the manifest -> bytes of a plate's file list, where the manifest names any.
        images: Paths of the images.
    """

    manifest: BatchManifest
    lists: dict[str, bytes]
    images: list[str]

    def objects(self) -> Iterator[Object]:
        """Yield all objects below the landing prefix but the manifest and the file lists."""
        prefix = self.manifest.batch_id
        yield from ((f"{prefix}/{path}", None, IMAGE_BYTES) for path in self.images)
        for plate in self.manifest.plates:
            yield from ((f"{prefix}/{path}", None, IMAGE_BYTES) for path in (plate.load_data, plate.plate_map))


def large_batch(plates: int) -> LargeBatch:
    """Return a batch of so many large plates."""
    wells = [(row, column) for row in range(1, 17) for column in range(1, 25)]
    inline = plates * len(wells) * SITES * len(STAINS) <= MOST_INLINE
    entries, lists, images = list[PlateEntry](), dict[str, bytes](), list[str]()
    for number in range(plates):
        plate = f"BR0011{number:04d}"
        folder = f"2021_04_26_Batch1/images/{plate}__2021-05-02T16_02_51-Measurement1/Images"
        paths = [
            f"{folder}/r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
            for row, column in wells
            for site in range(1, SITES + 1)
            for channel in range(1, len(STAINS) + 1)
        ]
        entry = _plate(plate, paths, number)
        if not inline:
            listed, tables = entry.files[: len(paths)], entry.files[len(paths) :]
            reference, lists[f"files/{plate}.parquet"] = written_list(f"files/{plate}.parquet", listed)
            entry = entry.model_copy(update={"files": tables, "file_list": reference})
        entries.append(entry)
        images += paths
    return LargeBatch(_manifest("site_00", "large", entries), lists, images)


def fill_releases(settings: Settings, count: int) -> None:
    """Write so many releases into the log, as a promotion does, each of a registered version of its own.

    Args:
        settings: Where the release log and MLflow are.
        count: Releases, spread over `SOURCES` sources; as many versions of the extractor.
    """
    client, log = connect(settings), ReleaseLog(settings)
    client.create_registered_model(EXTRACTOR)
    for number in range(count):
        release = _release(f"adapt-{number}", f"site_{number % SOURCES:02d}", number + 1)
        tags = {
            "kind": "extractor", "alignment": "none", "digest": release.extractor.digest, "run_id": release.run_id,
            "line": release.extractor.digest, "source": release.source, "width": "96",
        }  # fmt: skip
        client.create_model_version(EXTRACTOR, source=f"{settings.mlflow_artifacts}/{number}", tags=tags)
        words = "the candidate is no worse"
        log.append(release, release.source, action="promote", by="gate", reason=words, after=number // SOURCES)


def fill_ledger(endpoint: str, versions: Iterable[BatchVersion]) -> int:
    """Write versions that came to a good end, as the trigger writes them; return how many there were."""
    settings, count = settings_at(endpoint), 0
    ledger = Ledger(store_for(settings.platform, settings), "benchmark")
    for version in versions:
        state = ledger.append(version, "landed", after=None)
        ledger.claim(version)
        for name in ("claimed", "running", "released"):
            state = ledger.append(version, name, after=state, attempt=1)
        ledger.beat(version)
        count += 1
    return count


def first_release() -> Object:
    """Return the pointer that a training leaves: without one, every batch waits for it."""
    release = _release("train-1", "teacher", 1)
    entry = PointerEntry(
        sequence=1, scope="default", action="promote", release=release, by="gate", reason="first", at=EPOCH
    )  # fmt: skip
    return "releases/default/000001.json", entry.to_json(), 0


def _release(run_id: str, source: str, version: int) -> ReleaseRecord:
    return ReleaseRecord(
        release_id=run_id, source=source, created_at=EPOCH, method="source", alignment="none", run_id=run_id,
        extractor=ModelRef(name=EXTRACTOR, version=version, digest=_digest(f"extractor {version}")),
        head=ModelRef(name=HEAD, version=1, digest=_digest("head")), params_digest=_digest("params"),
        gate_sentence="The candidate is no worse.", approver="gate",
    )  # fmt: skip


def _manifest(source: str, batch: str, plates: list[PlateEntry]) -> BatchManifest:
    return BatchManifest(
        schema_version=version_of(plates), source=source, batch=batch, created_at=EPOCH + timedelta(days=1),
        instrument=find_laboratory("lab_b").described(1), channels=STAINS, plate_wells=WELLS, plates=tuple(plates),
    )  # fmt: skip


def _plate(plate: str, images: list[str], seed: int) -> PlateEntry:
    tables = [f"load_data/{plate}.csv", f"platemaps/{plate}.csv"]
    files = [
        FileEntry(path=path, size_bytes=IMAGE_BYTES, sha256=f"{seed:032x}{number:032x}")
        for number, path in enumerate([*images, *tables])
    ]
    return PlateEntry(plate=plate, plate_map=tables[1], load_data=tables[0], sites_per_well=SITES, files=tuple(files))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _post(address: str, body: bytes) -> None:
    request = urllib.request.Request(address, data=body, method="POST")  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        answer.read()
