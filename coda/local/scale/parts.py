"""Measures the parts that grow with years and not with one batch: looks of the trigger, and large manifests."""

import json
import subprocess
import sys
from typing import Any

from coda.errors import CodaError, Problem
from coda.local.scale import crowd


def measure_looks(objects: int, versions: int) -> dict[str, Any]:
    """Return what a look and a round cost a trigger with so much behind it; all batches that lie there are known.

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
    manifest = crowd.large_manifest(plates)
    text, key = manifest.to_json(), f"{manifest.source}/{manifest.batch}/manifest.json"
    files = [(f"{manifest.batch_id}/{file.path}", None, file.size_bytes) for it in manifest.plates for file in it.files]
    with crowd.crowded_store() as endpoint:
        crowd.load(endpoint, crowd.LANDING, [(key, text, 0), *files])
        crowd.load(endpoint, crowd.PLATFORM, [crowd.first_release()])
        found = _look(endpoint)
    first = found["looks"][0]
    taken = not any(state.startswith("refused") for state in found["states"])
    return {"plates": plates, "files": len(files), "manifest_bytes": len(text), "taken": taken, **first, **_rest(found)}


def _look(endpoint: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "coda.local.scale.looking", endpoint]
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
