"""The figures of one measured run: what each step used and moved, against the stored bytes of the batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scale.run_watching import STORE_ENDING, Watched, Watching, bytes_on_disk
from benchmarks.scale.traffic import Request
from coda.errors import CodaError, Problem
from coda.runners.port import RunOutcome
from coda.settings import Settings
from coda.storage.clone import entries_in, object_key
from coda.storage.data_registry import find_batch
from coda.storage.objects import split_uri, store_for

READS, WRITES = "read_bytes", "written_bytes"


@dataclass(frozen=True)
class Run:
    """One monitored run.

    Attributes:
        watching: Its steps.
        requests: What the object store was asked meanwhile.
        outcome: How it ended.
        seconds: Seconds from start to end.
        folder: Its folder on this machine, as the run left it.
        landing: Bucket of the raw images.
    """

    watching: Watching
    requests: Sequence[Request]
    outcome: RunOutcome
    seconds: float
    folder: Path
    landing: str


def figures_of(run: Run, settings: Settings, source: str, batch: str) -> dict[str, Any]:
    """Return all figures of a run; bytes are bytes. ``stored_bytes`` is D, that of the batch's plate stores.

    Args:
        run: The run.
        settings: Where the services are.
        source: Source of the batch.
        batch: The batch.

    Raises:
        CodaError: The data registry holds no plate of the batch.
    """
    plates = stored_plates(source, batch, settings)
    inside = {step.name: step.seconds for step in (run.outcome.record.steps if run.outcome.record else ())}
    asked = by_step(run.requests, run.watching, settings)
    steps = {
        name: {**used(row), "inside_s": inside.get(name), **(asked.get(name) or traffic([], settings))}
        for name, row in run.watching.steps.items()
    }
    totals = traffic(run.requests, settings)
    handed, left = (sum(row[name] for row in steps.values()) for name in ("handed_bytes", "output_bytes"))
    moved = totals["data"][READS] + totals["data"][WRITES] + totals["records"][READS] + totals["records"][WRITES]
    remains = {path.name: bytes_on_disk(path) for path in sorted(run.folder.iterdir()) if path.is_dir()}
    return {
        "outcome": run.outcome.outcome,
        "stored_bytes": sum(plates.values()),
        "seconds": run.seconds,
        "cpu_s": sum(row["cpu_s"] for row in steps.values()),
        "requests": sum(part["requests"] for part in totals.values()),
        "traffic": totals,
        "handed_bytes": handed,
        "output_bytes": left,
        "moved_bytes": moved + handed + left,
        "moved_stores_bytes": _of_stores(run.requests, plates, settings)
        + sum(row.stores_bytes for row in run.watching.steps.values()),
        "left_bytes": bytes_on_disk(run.folder),
        "left": remains,
        "steps": steps,
        "between_steps": asked.get("runner") or traffic([], settings),
    }


def used(row: Watched) -> dict[str, Any]:
    """Return what a step used, as it is written down."""
    return {
        "tasks": row.tasks,
        "seconds": row.seconds,
        "cpu_s": row.cpu_s,
        "peak_bytes": row.peak_bytes,
        "inherited_bytes": row.inherited_bytes,
        "peak_all_bytes": row.peak_all_bytes,
        "handed_bytes": sum(row.handed.values()),
        "output_bytes": sum(row.left.values()),
        "stores_bytes": row.stores_bytes,
        "handed": row.handed,
        "outputs": row.left,
    }


def by_step(requests: Sequence[Request], watching: Watching, settings: Settings) -> dict[str, Any]:
    """Return step -> its traffic, by the moment at which a request came: steps that are not the same do not overlap."""
    found: dict[str, list[Request]] = {}
    for request in requests:
        found.setdefault(watching.step_at(request.began), []).append(request)
    return {step: traffic(asked, settings) for step, asked in found.items()}


def traffic(requests: Sequence[Request], settings: Settings) -> dict[str, dict[str, int]]:
    """Return requests and bytes by what they are about.

    Returns:
        'raw' (the landing bucket: images as they were delivered), 'data' (the data registry's store) and 'records'
        (everything else in the platform bucket), each with ``requests``, ``read_bytes`` and ``written_bytes``.
    """
    parts = {name: {"requests": 0, READS: 0, WRITES: 0} for name in ("raw", "data", "records")}
    for request in requests:
        part = parts[kind_of(request, settings)]
        part["requests"] += 1
        part[READS] += request.sent
        part[WRITES] += request.received
    return parts


def kind_of(request: Request, settings: Settings) -> str:
    """Return what a request is about: 'raw', 'data' or 'records'."""
    if request.bucket == split_uri(settings.landing)[0]:
        return "raw"
    bucket, prefix = split_uri(settings.data_remote)
    return "data" if request.bucket == bucket and request.key.startswith(f"{prefix}/") else "records"


def stored_plates(source: str, batch: str, settings: Settings) -> dict[str, int]:
    """Return the plate stores of a batch: key below the data registry's store -> bytes.

    Raises:
        CodaError: There is none.
    """
    revision = find_batch(source, batch, settings=settings)
    remote = store_for(settings.data_remote, settings)
    key = object_key(revision.digest)
    entries = entries_in(remote.get(key), remote.url(key))
    keys = {entry.relpath: object_key(entry.md5) for entry in entries if entry.relpath.endswith(STORE_ENDING)}
    sizes = {key: remote.size(key) for key in keys.values()}
    absent = [name for name, key in keys.items() if not sizes[key]]
    if absent or not sizes:
        found = f"no bytes of {', '.join(absent[:3])}" if absent else "no plate store"
        problem = Problem(f"{source}/{batch}", found, "plate stores in the data registry", "See `coda data list`.")
        raise CodaError("The stored bytes of the batch cannot be determined.", [problem])
    return {key: size for key, size in sizes.items() if size}


def _of_stores(requests: Sequence[Request], plates: Mapping[str, int], settings: Settings) -> int:
    """Return the bytes that went in and out of object storage of these plate stores."""
    bucket, prefix = split_uri(settings.data_remote)
    keys = {f"{prefix}/{key}" for key in plates}
    return sum(it.received + it.sent for it in requests if it.bucket == bucket and it.key in keys)
