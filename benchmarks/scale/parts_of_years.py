"""Measures the parts that grow with years and not with one batch: polls of the trigger, large manifests, releases."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.scale import crowd
from benchmarks.scale.process_use import memory_of
from coda.errors import CodaError, Problem
from coda.settings import Settings
from coda.storage.objects import store_for

GLANCE_S = 0.02
"""Seconds between two looks at the memory of a command."""


def measure_looks(objects: int, versions: int) -> dict[str, Any]:
    """Return what a poll and a round cost a trigger with so much behind it; all batches there are known.

    Args:
        objects: Objects below the landing prefix, in batches of `crowd.BATCH_OBJECTS`.
        versions: Versions in the ledger, all of them released.

    Raises:
        CodaError: The trigger ended otherwise than by looking.
    """
    with crowd.crowded_store() as endpoint:
        batches = objects // crowd.BATCH_OBJECTS
        made = [crowd.small_batch(number) for number in range(max(batches, versions))]
        landed = crowd.load(
            endpoint, crowd.LANDING, (item for _, contents in made[:batches] for item in contents)
        )  # fmt: skip
        crowd.load(endpoint, crowd.PLATFORM, [crowd.first_release()])
        known = crowd.fill_ledger(endpoint, (version for version, _ in made[:versions]))
        del made
        found = _look(endpoint)
    return {"objects": landed, "versions": known, "first": found["looks"][0], "then": _best(found), **_rest(found)}


def measure_manifest(plates: int) -> dict[str, Any]:
    """Return what it costs a trigger to take a batch of so many plates of 17,280 images, all of which are there.

    Raises:
        CodaError: The trigger ended otherwise than by looking.
    """
    batch = crowd.large_batch(plates)
    text, prefix = batch.manifest.to_json(), batch.manifest.batch_id
    with crowd.crowded_store() as endpoint:
        settings = crowd.settings_at(endpoint)
        files = crowd.load(endpoint, crowd.LANDING, batch.objects())
        landing = store_for(settings.landing, settings)
        for path, body in batch.lists.items():
            landing.put(f"{prefix}/{path}", body)
        crowd.load(endpoint, crowd.LANDING, [(f"{prefix}/manifest.json", text, 0)])
        crowd.load(endpoint, crowd.PLATFORM, [crowd.first_release()])
        found = _look(endpoint)
    taken = bool(found["states"]) and not any(state.startswith("refused") for state in found["states"])
    sizes = {"manifest_bytes": len(text), "list_bytes": sum(len(body) for body in batch.lists.values())}
    return {"plates": plates, "files": files, **sizes, "taken": taken, **found["looks"][0], **_rest(found)}


def measure_releases(count: int) -> dict[str, Any]:
    """Return what `coda registry list` costs after so many releases, each of a registered version of its own.

    Returns:
        'serving' (the command as it is) and 'versions' (with every registered version): seconds, ``cpu_s``,
        ``peak_bytes``, requests to object storage and their bytes.

    Raises:
        CodaError: The command failed.
    """
    with tempfile.TemporaryDirectory(prefix="coda-releases-") as folder, crowd.crowded_store() as endpoint:
        settings = crowd.settings_at(endpoint, Path(folder))
        crowd.fill_releases(settings, count)
        words = {"serving": (), "versions": ("--versions",)}
        return {"releases": count, **{name: _list(settings, *more) for name, more in words.items()}}


def _list(settings: Settings, *more: str) -> dict[str, Any]:
    endpoint = str(settings.s3_endpoint)
    crowd.counts(endpoint)
    command = [sys.executable, "-m", "coda", "registry", "list", *more]
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env={**os.environ, **settings.environment}, stdout=said, stderr=said)
        pid, peak = 0, 0
        while not pid:
            # the kernel's high-water mark of a process that has ended would count what this one had when it started it
            peak = max(peak, memory_of(process.pid)[1])
            time.sleep(GLANCE_S)
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
    if process.returncode:
        problem = Problem("coda registry list", words[0], "a list", "Run it against a registry of yours.")
        raise CodaError("The command that is measured failed.", [problem])
    seconds, asked = time.monotonic() - began, crowd.counts(endpoint)
    return {
        "seconds": seconds, "cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": peak,
        "bytes": asked.pop("bytes", 0), "requests": sum(asked.values()),
    }  # fmt: skip


def _look(endpoint: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale.trigger_looks", endpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        problem = Problem("trigger", words[0], "three looks", f"Run it by itself: {' '.join(command)}.")
        raise CodaError("The trigger that is measured ended.", [problem])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _best(found: dict[str, Any]) -> dict[str, Any]:
    return dict(min(found["looks"][1:], key=lambda row: row["look"]["cpu_s"] + row["round"]["cpu_s"]))


def _rest(found: dict[str, Any]) -> dict[str, Any]:
    return {"peak_bytes": found["peak_bytes"], "states": found["states"]}
