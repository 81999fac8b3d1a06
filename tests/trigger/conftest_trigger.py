"""A platform in memory that can be made to fail at any operation, and one on loopback."""

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from servers import moto_server

from coda.contracts import BatchManifest, ModelRef, ReleaseRecord, RunRecord
from coda.errors import Problem, TransientError
from coda.settings import Settings
from coda.storage.failures import ObjectNotFoundError, ObjectTooLargeError
from coda.storage.levels import Level
from coda.storage.objects import ObjectInfo, split_uri

__all__ = ["moto_server"]

HEX = "ab" * 32
T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Disk:
    """What all stores of one test share: objects, and when to fail."""

    objects: dict = field(default_factory=dict)
    written: dict = field(default_factory=dict)
    countdown: int | None = None
    how: str = "killed-before"
    asked: list = field(default_factory=list)
    amid: tuple | None = None

    def fault(self, when):
        if when == "before" and self.amid is not None:
            left, act = self.amid
            self.amid = (left - 1, act) if left else None
            if not left:
                act()
        if self.countdown is None or not self.how.endswith(when):
            return
        self.countdown -= 1
        if self.countdown < 0:
            self.countdown = None
            raise Killed if self.how.startswith("killed") else TransientError("The object store is away.")


class MemoryStore:
    """The object store's port over a dictionary."""

    disk = None

    def __init__(self, uri, endpoint=None):
        self.bucket, self.prefix = split_uri(uri)

    def path(self, key):
        return f"{self.prefix}/{key}" if self.prefix else key

    def url(self, key):
        return f"s3://{self.bucket}/{self.path(key)}"

    def find(self, key, *, at_most=None, verb="GET"):
        self.disk.asked.append((verb, self.url(key)))
        self.disk.fault("before")
        body = self.disk.objects.get(self.url(key))
        if body is not None and at_most is not None and len(body) > at_most:
            problem = Problem(self.url(key), f"{len(body)} bytes", f"at most {at_most}", "Find out who changed it.")
            raise ObjectTooLargeError(f"{key} is larger than expected.", [problem])
        return body

    def age_s(self, key):
        body = self.find(key, verb="HEAD")
        return None if body is None else time.monotonic() - self.disk.written[self.url(key)]

    def get(self, key, *, at_most=None):
        return self.get_tagged(key, at_most=at_most)[0]

    def get_tagged(self, key, *, at_most=None):
        body = self.find(key, at_most=at_most)
        if body is None:
            raise ObjectNotFoundError(f"no {key}")
        return body, hashlib.sha256(body).hexdigest()

    def info(self, key):
        body = self.find(key, verb="HEAD")
        return None if body is None else self._info(self.url(key), key)

    def size(self, key):
        body = self.find(key, verb="HEAD")
        return None if body is None else len(body)

    def exists(self, key):
        return self.size(key) is not None

    def put(self, key, data, content_type=""):
        self.disk.asked.append(("PUT", self.url(key)))
        self.disk.fault("before")
        self.disk.objects[self.url(key)] = data
        self.disk.written[self.url(key)] = time.monotonic()
        self.disk.fault("after")

    def put_if_absent(self, key, data, content_type=""):
        self.disk.asked.append(("PUT", self.url(key)))
        self.disk.fault("before")
        won = self.disk.objects.setdefault(self.url(key), data) is data
        if won:
            self.disk.written[self.url(key)] = time.monotonic()
        self.disk.fault("after")
        return won

    def delete(self, key):
        self.disk.asked.append(("DELETE", self.url(key)))
        self.disk.fault("before")
        self.disk.objects.pop(self.url(key), None)
        self.disk.fault("after")

    def list(self, prefix=""):
        self.disk.asked.append(("LIST", self.url(prefix)))
        self.disk.fault("before")
        root = f"s3://{self.bucket}/{self.prefix + '/' if self.prefix else ''}"
        for name in sorted(self.disk.objects):
            if name.startswith(root + prefix):
                yield self._info(name, name[len(root) :])

    def level(self, prefix="", *, pages=None):
        objects, folders = [], {}
        for item in self.list(prefix):
            rest = item.key[len(prefix) :]
            if "/" in rest:
                folders[prefix + rest.partition("/")[0] + "/"] = None
            else:
                objects.append(item)
        return Level(tuple(objects), tuple(folders))

    def _info(self, name, key):
        body = self.disk.objects[name]
        ago = timedelta(seconds=time.monotonic() - self.disk.written.get(name, time.monotonic()))
        return ObjectInfo(key, len(body), hashlib.sha256(body).hexdigest(), datetime.now(UTC) - ago)


class Cluster:
    """A submitter whose runs end when the test says so; submitting is idempotent by run id, as the real ones are."""

    def __init__(self, store):
        self.store = store
        self.live, self.succeeded, self.started, self.requests = set(), [], [], []
        self.away = False

    def submit(self, request):
        self.requests.append(request)
        if self.away:
            raise TransientError("Kubeflow is away.")
        if request.run_id not in self.live and request.run_id not in self.succeeded:
            self.live.add(request.run_id)
            self.started.append(request.run_id)
            self.store.delete(f"runs/{request.run_id}/failure.json")

    def last_words(self, run_id):
        return f"the last line of {run_id}"

    def alive(self, run_id):
        return run_id in self.live

    def stop(self, grace_s):
        return frozenset()

    def end(self, run_id, outcome="released"):
        self.live.discard(run_id)
        if outcome in {"transient", "lasting", "unusable"}:
            failure = {
                "step": "ingest" if outcome == "unusable" else "adapt", "error": "E",
                "exit_code": 75 if outcome == "transient" else 3, "message": "It broke.", "problems": [],
            }  # fmt: skip
            self.store.put(f"runs/{run_id}/failure.json", json.dumps(failure).encode())
        elif outcome != "vanished":
            self.succeeded.append(run_id)
            self.store.put(f"runs/{run_id}/run.json", record_of(run_id, outcome).to_json().encode())


class Immediate(Cluster):
    """A cluster whose runs end as planned before anybody looks."""

    def __init__(self, store, *plan):
        super().__init__(store)
        self.plan = list(plan)

    def submit(self, request):
        known = request.run_id in self.succeeded
        super().submit(request)
        if not known:
            self.end(request.run_id, self.plan.pop(0) if self.plan else "released")


def record_of(run_id, outcome):
    return RunRecord(
        run_id=run_id, pipeline="adaptation", started_at=T0, finished_at=T0, outcome=outcome, sentence="It ended.",
        batches=(), manifest_digests=(), code_version="c", params_digest=HEX, seed=0,
    )  # fmt: skip


def manifest_of(source, batch, note="", size=3):
    files = [{"path": name, "size_bytes": size, "sha256": HEX} for name in ("map.csv", "load.csv", "a b/im+1.tif")]
    plate = {"plate": "p1", "plate_map": "map.csv", "load_data": "load.csv", "sites_per_well": 1, "files": files}
    raw = {
        "source": source, "batch": batch, "created_at": "2026-01-01T00:00:00Z", "channels": ["DNA"], "plate_wells": 96,
        "instrument": {"name": f"scope{note}", "modality": "widefield", "pixel_size_um": 0.5}, "plates": [plate],
    }  # fmt: skip
    return BatchManifest.parse(json.dumps(raw), "test")


def deliver(landing, source="lab_b", batch="b1", note="", *, files=True, manifest=True):
    """Write a batch as a producer does: files first, the manifest last."""
    document = manifest_of(source, batch, note)
    if files:
        for file in document.plates[0].files:
            landing.put(f"{source}/{batch}/{file.path}", b"abc")
    if manifest:
        landing.put(f"{source}/{batch}/manifest.json", document.to_json().encode())
    return document


def release_of(source="lab_a"):
    return ReleaseRecord(
        release_id="r1", source=source, created_at=T0, method="source",
        extractor=ModelRef(name="e", version=1, digest=HEX), head=ModelRef(name="h", version=1, digest=HEX),
        alignment="none", run_id="train", params_digest=HEX, gate_sentence="s", approver="gate",
    )  # fmt: skip


def train(settings):
    """Make the default release that adaptation starts from."""
    from coda.registry.releases import ReleaseLog

    ReleaseLog(settings).append(release_of(), "default", action="promote", by="t", reason="r", after=0)


@pytest.fixture
def platform(monkeypatch):
    """Settings, landing and platform store in memory, with a default release of lab_a."""
    return in_memory(monkeypatch.setattr)


def in_memory(replace):
    disk = Disk()
    store_class = type("Store", (MemoryStore,), {"disk": disk})
    make = lambda uri, settings: store_class(uri)  # noqa: E731
    for place in ("coda.trigger.service", "coda.registry.releases"):
        replace(f"{place}.store_for", make)
    for place in ("coda.steps.context", "coda.steps.record"):
        replace(f"{place}.ObjectStore", store_class)
    # one request after the other, so that a fault drawn for one meets the same at every repetition
    replace("coda.trigger.side_by_side.AT_ONCE", 1)
    # a dictionary creates once; faults are counted by operation, and the probe is asked once a process alone
    replace("coda.trigger.service.require_conditional_writes", lambda store: None)
    settings = Settings(
        landing="s3://landing/in", platform="s3://platform", mlflow_uri="sqlite://", data_registry="/r",
        data_remote="s3://x/dvc", checkpoints="/c",
    )  # fmt: skip
    train(settings)
    return SimpleNamespace(
        disk=disk, settings=settings, landing=store_class(settings.landing), store=store_class(settings.platform)
    )
