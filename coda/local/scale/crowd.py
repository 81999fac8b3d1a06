"""What a trigger meets after years: many batches in the landing prefix, many versions in the ledger; and large ones."""

import hashlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal

from coda.contracts import BatchManifest, ModelRef, PointerEntry, ReleaseRecord
from coda.contracts.manifest import FileEntry, PlateEntry
from coda.errors import CodaError
from coda.local.environment import choose
from coda.settings import Settings
from coda.simulation.laboratories import find_laboratory
from coda.storage.objects import store_for
from coda.trigger.batches import BatchVersion
from coda.trigger.ledger import Ledger

BATCH_OBJECTS = 100
"""Objects of one batch below the landing prefix, its manifest among them."""

SOURCES = 20
BLOCK = 20_000
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
    command = [sys.executable, "-m", "coda.local.scale.crowded_store"]
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


def settings_at(endpoint: str) -> Settings:
    """Return the settings of a trigger at this store; it reaches nothing else."""
    return Settings(
        landing=f"s3://{LANDING}", platform=f"s3://{PLATFORM}", s3_endpoint=endpoint, mlflow_uri="sqlite://",
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


def large_manifest(plates: int) -> BatchManifest:
    """Return a manifest of plates of 17,280 images (384 wells, 9 fields, 5 stains) with names as JUMP has them."""
    wells = [(row, column) for row in range(1, 17) for column in range(1, 25)]
    entries = []
    for number in range(plates):
        plate = f"BR0011{number:04d}"
        folder = f"2021_04_26_Batch1/images/{plate}__2021-05-02T16_02_51-Measurement1/Images"
        images = [
            f"{folder}/r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
            for row, column in wells
            for site in range(1, SITES + 1)
            for channel in range(1, len(STAINS) + 1)
        ]
        entries.append(_plate(plate, images, number))
    return _manifest("site_00", "large", entries)


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
    model = ModelRef(name="coda-extractor", version=1, digest=_digest("extractor"))
    release = ReleaseRecord(
        release_id="train-1", source="teacher", created_at=EPOCH, method="source", extractor=model,
        head=ModelRef(name="coda-head", version=1, digest=_digest("head")), alignment="none", run_id="train-1",
        params_digest=_digest("params"), gate_sentence="The first release.", approver="gate",
    )  # fmt: skip
    entry = PointerEntry(
        sequence=1, scope="default", action="promote", release=release, by="gate", reason="first", at=EPOCH
    )  # fmt: skip
    return "releases/default/000001.json", entry.to_json(), 0


def _manifest(source: str, batch: str, plates: list[PlateEntry]) -> BatchManifest:
    return BatchManifest(
        source=source, batch=batch, created_at=EPOCH + timedelta(days=1),
        instrument=find_laboratory("lab_b").described(1), channels=STAINS, plate_wells=WELLS, plates=tuple(plates),
    )  # fmt: skip


def _plate(plate: str, images: list[str], seed: int) -> PlateEntry:
    tables = [f"load_data/{plate}.csv", f"platemaps/{plate}.csv"]
    files = [
        FileEntry(path=path, size_bytes=1000, sha256=f"{seed:032x}{number:032x}")
        for number, path in enumerate([*images, *tables])
    ]
    return PlateEntry(plate=plate, plate_map=tables[1], load_data=tables[0], sites_per_well=SITES, files=tuple(files))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _post(address: str, body: bytes) -> None:
    request = urllib.request.Request(address, data=body, method="POST")  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        answer.read()
