"""Looks at what the soak left, object by object, and believes nothing that the code under test says about itself.

The bucket is read with plain boto3, MLflow's database with SQL, the data registry with `git log`. Nothing here imports
the ledger, the release log or the registry; the only thing known besides is what the producers sent.
"""

import json
import re
import sqlite3
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from coda.settings import Settings
from tests.soak.deliveries import Sent

ENDS = ("released", "incumbent_kept", "held")
"""Final states of an accepted version."""

FINAL = (*ENDS, "refused", "failed")


@dataclass(frozen=True)
class Model:
    """One registered version: name, number, and the run that registered it."""

    name: str
    version: int
    run_id: str


@dataclass
class Left:
    """What is there after a soak.

    Attributes:
        objects: Key -> bytes of the platform bucket's records: ledger, releases, runs, predictions.
        models: Versions in MLflow, deleted ones left out.
        unversioned: Logged models in MLflow without a version.
        commits: Run -> commits of the data registry that name it.
        revisions: All commits of the data registry.
    """

    objects: Mapping[str, bytes]
    models: list[Model]
    unversioned: int = 0
    commits: Mapping[str, int] = field(default_factory=dict)
    revisions: frozenset[str] = frozenset()


@dataclass
class Findings:
    """What an audit found; every list holds sentences.

    Attributes:
        accepted: Versions that were accepted.
        refused: Versions that were refused for the reason that was planted, or since they were replaced.
        released: Accepted versions with exactly one release of their own.
        kept: Accepted versions whose one decision was to keep what served.
        lost: Versions without an end, without a decision, or without what an end must leave.
        duplicated: Whatever happened more than once.
        orphans: Models, releases and predictions that belong to no accepted version.
        surprises: Ends that are neither lost nor doubled, but not what was planted.
        unversioned: Packages in MLflow's artifacts that a killed run left without a version.
    """

    accepted: int = 0
    refused: int = 0
    released: int = 0
    kept: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    unversioned: int = 0

    @property
    def released_once(self) -> int:
        """Accepted versions with exactly one release or one decision to keep the incumbent."""
        return self.released + self.kept

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        wrong = self.lost or self.duplicated or self.orphans or self.surprises
        return not wrong and self.accepted == self.released_once


def collect(settings: Settings) -> Left:
    """Read everything, around the code under test."""
    client = boto3.client("s3", endpoint_url=settings.s3_endpoint)
    bucket = settings.platform.removeprefix("s3://")
    objects = {}
    for prefix in ("ledger/", "releases/", "runs/", "predictions/"):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                key = item["Key"]
                # predictions and candidates count by their names alone
                small = key.endswith(".json") and not key.startswith("predictions/")
                objects[key] = client.get_object(Bucket=bucket, Key=key)["Body"].read() if small else b""
    return Left(objects, *_models(settings), *_commits(Path(settings.data_registry)))


def _models(settings: Settings) -> tuple[list[Model], int]:
    with closing(sqlite3.connect(settings.mlflow_uri.removeprefix("sqlite:///"))) as database:
        rows = database.execute(
            "select v.name, v.version, t.value, v.source from model_versions v left join model_version_tags t"
            " on t.name = v.name and t.version = v.version and t.key = 'run_id'"
            " where v.current_stage != 'Deleted_Internal'"
        ).fetchall()
        logged = {row[0] for row in database.execute("select artifact_location from logged_models").fetchall()}
    models = [Model(str(name), int(version), str(run_id)) for name, version, run_id, _ in rows]
    return sorted(models, key=lambda model: (model.name, model.version)), len(logged - {row[3] for row in rows})


def _commits(registry: Path) -> tuple[dict[str, int], frozenset[str]]:
    command = ["git", "-C", str(registry), "log", "--format=%H%x00%B%x01"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    entries = [entry.strip().split("\0") for entry in log.split("\1") if entry.strip()]
    runs = Counter(run for _, body in entries for run in re.findall(r"^run: (\S+)$", body, re.MULTILINE))
    return dict(runs), frozenset(commit for commit, _ in entries)


def audit(left: Left, sent: Iterable[Sent]) -> Findings:
    """Compare what is there with what was sent."""
    return _Audit(left).run(list(sent))


class _Audit:
    """One audit under way."""

    def __init__(self, left: Left) -> None:
        self.left = left
        self.found = Findings(unversioned=left.unversioned)
        self.states: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for key in sorted(left.objects):
            if match := re.fullmatch(r"ledger/([^/]+/[^/]+/[0-9a-f]{16})/states/\d{4}\.json", key):
                self.states[match[1]].append(json.loads(left.objects[key]))
        self.releases = [self.json(key) for key in sorted(left.objects) if key.startswith("releases/")]
        self.runs = {
            key.split("/")[1]: self.json(key) for key in left.objects if re.fullmatch(r"runs/[^/]+/run\.json", key)
        }
        self.accepted: dict[str, str] = {}  # run -> source/batch

    def json(self, key: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.left.objects[key])
        return value

    def run(self, sent: list[Sent]) -> Findings:
        known = set()
        for version in sent:
            name = self._name(version)
            known.add(name)
            self._version(version, name)
        unknown = sorted(set(self.states) - known)
        self.found.surprises += [f"{name}: in the ledger, but nobody sent it" for name in unknown]
        self._release_log()
        self._models()
        self._predictions()
        return self.found

    def _name(self, version: Sent) -> str:
        names = [f"{version.source}/{version.batch}/{digest[:16]}" for digest in version.digests]
        return next((name for name in names if name in self.states), names[0])

    def _version(self, version: Sent, name: str) -> None:
        states = self.states.get(name)
        if not states:
            self.found.lost.append(f"{name}: was sent, but is not in the ledger")
            return
        if [state["sequence"] for state in states] != list(range(1, len(states) + 1)):
            self.found.lost.append(f"{name}: a state is missing")
        last = states[-1]
        words = " ".join(last["reasons"])
        # a person may open a failed one again; any other end is the last state
        ends = [state["state"] for state in states if state["state"] in FINAL and state["state"] != "failed"]
        if last["state"] not in FINAL or last["state"] == "failed":
            self.found.lost.append(f"{name}: {last['state']} ({words[:300]})")
        elif len(ends) > 1:
            self.found.duplicated.append(f"{name}: ended {len(ends)} times ({', '.join(ends)})")
        elif last["state"] == "refused":
            if any(word in words for word in version.fate.refused):
                self.found.refused += 1
            else:
                self.found.surprises.append(f"{name}: refused for another reason than planted: {words[:300]}")
            if any(entry["release"]["run_id"] == last["run_id"] for entry in self.releases):
                self.found.orphans.append(f"{name}: refused, but released")
        elif not version.fate.accepted:
            self.found.surprises.append(f"{name}: {last['state']}, but it had to be refused")
        else:
            self._accepted(name, last)

    def _accepted(self, name: str, last: dict[str, Any]) -> None:
        self.found.accepted += 1
        run_id = last["run_id"]
        self.accepted[run_id] = name.rpartition("/")[0]
        run = self.runs.get(run_id)
        if run is None:
            self.found.lost.append(f"{name}: {last['state']}, but without a record of the run")
            return
        if run["outcome"] != last["state"] or run["manifest_digests"] != [last["manifest_digest"]]:
            self.found.surprises.append(f"{name}: ledger and record of the run differ")
        self._versioned(name, run)
        own = [entry for entry in self.releases if entry["release"]["run_id"] == run_id]
        if len(own) > 1:
            self.found.duplicated.append(f"{name}: released {len(own)} times")
        elif last["state"] == "released":
            if own:
                self.found.released += 1
            else:
                self.found.lost.append(f"{name}: released, but not in the release log")
        elif any(entry["release"]["release_id"] == run["release_id"] for entry in self.releases):
            self.found.kept += 1
        else:
            self.found.lost.append(f"{name}: {last['state']}, but what serves is not in the release log")

    def _versioned(self, name: str, run: dict[str, Any]) -> None:
        if self.left.commits.get(run["run_id"], 0) > 1:
            self.found.duplicated.append(f"{name}: versioned {self.left.commits[run['run_id']]} times")
        if not run["data"] or any(item["revision"] not in self.left.revisions for item in run["data"]):
            self.found.lost.append(f"{name}: its data revision is not in the data registry")

    def _release_log(self) -> None:
        scopes: dict[str, list[int]] = defaultdict(list)
        for entry in self.releases:
            scopes[entry["scope"]].append(entry["sequence"])
            run_id = entry["release"]["run_id"]
            if entry["release"]["method"] != "source" and run_id not in self.accepted:
                self.found.orphans.append(f"release {entry['release']['release_id']}: of no accepted version")
        for scope, numbers in scopes.items():
            if sorted(numbers) != list(range(1, len(numbers) + 1)):
                self.found.lost.append(f"release log of {scope}: entries {sorted(numbers)}")

    def _models(self) -> None:
        drafts = {
            (model["name"], model["version"])
            for run_id in self.accepted
            if f"runs/{run_id}/release.json" in self.left.objects
            for record in [self.json(f"runs/{run_id}/release.json")]
            for model in (record["extractor"], record["head"])
        }
        trained = {entry["release"]["run_id"] for entry in self.releases if entry["release"]["method"] == "source"}
        adapted = [model for model in self.left.models if model.run_id not in trained]
        for model in adapted:
            if (model.name, model.version) not in drafts:
                self.found.orphans.append(f"{model.name} version {model.version} of {model.run_id}: in no release")
        for (name, run_id), times in Counter((model.name, model.run_id) for model in adapted).items():
            if times > 1:
                self.found.duplicated.append(f"{name}: {times} versions of {run_id}")

    def _predictions(self) -> None:
        wanted = {
            f"{batch}/{self.runs[run_id]['release_id']}"
            for run_id, batch in self.accepted.items()
            if run_id in self.runs
        }
        there = {"/".join(key.split("/")[1:4]) for key in self.left.objects if key.startswith("predictions/")}
        whole = {"/".join(key.split("/")[1:4]) for key in self.left.objects if _is_entry(key)}
        self.found.lost += [f"predictions {name}: missing" for name in sorted(wanted - whole)]
        self.found.orphans += [f"predictions {name}: of no accepted version" for name in sorted(there - wanted)]


def _is_entry(key: str) -> bool:
    """Whether an object announces published tables: an entry goes last, after all that it names."""
    return key.startswith("predictions/") and key.split("/")[4:5] == ["publications"]
