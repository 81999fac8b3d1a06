"""What came of a demo: accuracy by source before and after, against the truth that no step ever read."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coda.contracts import GateReport, QualityReport, RunRecord
from coda.errors import IntegrityError, Problem
from coda.evaluation.metrics.accuracy import accuracy
from coda.local.stages import Stages
from coda.registry.releases import ReleaseLog
from coda.settings import Settings
from coda.steps.publication import current
from coda.storage.objects import ObjectStore, store_for
from coda.storage.records import read_object

WELL = ["Metadata_Batch", "Metadata_Plate", "Metadata_Well"]


def summarise_seed(folder: Path, seed: int, stages: Stages, settings: Settings, source: str) -> dict[str, Any]:
    """Compare every way of serving with the truth, and list what the registry and the ledger hold.

    Returns:
        The keys ``sources``, ``refused``, ``stages``, ``runs``, ``models``, ``data_revisions``, ``reports``,
        ``pages``, ``drift`` and ``seed``; see docs/demo.md.
    """
    store = store_for(settings.platform, settings)
    truth = pd.read_csv(folder / "truth" / "labels.csv").set_index("Metadata_Compound")["moa"]
    runs = _runs(store)
    sources: dict[str, Any] = {source: {"role": "source", "methods": _held_out(store, runs)}}
    targets = {run.batches[0].split("/")[0] for run in runs if run.pipeline == "adaptation"}
    for name in sorted(targets):
        sources[name] = {"role": "target", **_target(store, runs, name, truth)}
    releases = ReleaseLog(settings)
    for name, entry in sources.items():
        serving = releases.serving(name)
        entry["release"] = json.loads(serving.to_json()) if serving else None
    return {
        "seed": seed,
        "sources": sources,
        "refused": _refused(store, runs),
        "stages": stages.seconds(),
        "runs": [json.loads(run.to_json()) for run in runs],
        "models": _models(settings),
        "data_revisions": {
            f"{data.source}/{data.batch}": {"revision": data.revision, "digest": data.digest}
            for run in runs
            for data in run.data
        },
        "reports": _fetch_reports(store, folder / "reports"),
        **_pages(settings, store, folder),
    }


def _runs(store: ObjectStore) -> list[RunRecord]:
    keys = sorted(item.key for item in store.list("runs/") if item.key.endswith("/run.json"))
    return sorted((RunRecord.parse(store.get(key), key) for key in keys), key=lambda run: run.started_at)


def _held_out(store: ObjectStore, runs: list[RunRecord]) -> dict[str, Any]:
    # the training pipeline's own evaluation, on batches it held out: the reference that adaptation tries to regain
    training = next(run for run in runs if run.pipeline == "training")
    numbers = read_object(store, f"runs/{training.run_id}/evaluation.json")
    names = {"none": "unadapted", "classical": "classical", "standardise": "aligned"}
    methods = {
        name: {
            "accuracy_field": numbers[f"{alignment}_accuracy_field"],
            "accuracy_well": numbers[f"{alignment}_accuracy_well"],
        }
        for alignment, name in names.items()
        if f"{alignment}_accuracy_field" in numbers
    }
    methods["released"] = max(methods.values(), key=lambda scores: scores["accuracy_field"])
    return methods


def _target(store: ObjectStore, runs: list[RunRecord], source: str, truth: pd.Series) -> dict[str, Any]:
    tables: dict[str, list[pd.DataFrame]] = {}
    batches: dict[str, Any] = {}
    for run in runs:
        name, _, batch = run.batches[0].partition("/")
        if run.pipeline != "adaptation" or name != source or run.outcome == "refused":
            continue
        gate = GateReport.parse(store.get(f"runs/{run.run_id}/gate.json"), "gate.json")
        mine = {Path(item.key).stem: _read(store, item.key) for item in store.list(f"runs/{run.run_id}/candidates/")}
        if gate.fit_to_predict and run.release_id is not None:
            mine["released"] = _released(store, run.batches[0], run.release_id, run.manifest_digests[0])
        for method, table in mine.items():
            tables.setdefault(method, []).append(table)
        batches[batch] = {
            "run": run.run_id,
            "outcome": run.outcome,
            "chosen": gate.chosen,
            "sentence": gate.sentence,
            "methods": {method: _scores(table, truth) for method, table in mine.items()},
        }
    methods = {method: _scores(pd.concat(parts), truth) for method, parts in tables.items()}
    return {"methods": methods, "batches": batches}


def _released(store: ObjectStore, batch: str, release_id: str, manifest_digest: str) -> pd.DataFrame:
    found = current(store, batch, release_id, manifest_digest)
    if found is None:
        problem = Problem(f"predictions of {batch}", "none", f"those of release {release_id}", f"coda predict {batch}")
        raise IntegrityError("A batch that was served has no published predictions.", [problem])
    return pd.read_parquet(io.BytesIO(found.read(store, "field.parquet")))


def _read(store: ObjectStore, key: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(store.get(key)))


def _scores(table: pd.DataFrame, truth: pd.Series) -> dict[str, float]:
    columns = sorted(column for column in table.columns if column.startswith("p_"))
    classes = {column.removeprefix("p_"): index for index, column in enumerate(columns)}
    wells = table.groupby(WELL, sort=True).agg({**dict.fromkeys(columns, "mean"), "Metadata_Compound": "first"})
    return {
        "accuracy_field": _accuracy(table, columns, classes, truth),
        "accuracy_well": _accuracy(wells, columns, classes, truth),
    }


def _accuracy(table: pd.DataFrame, columns: list[str], classes: dict[str, int], truth: pd.Series) -> float:
    known = table["Metadata_Compound"].map(truth)
    labels = known.map(classes).fillna(-1).to_numpy().astype(np.intp)
    return round(accuracy(table[columns].to_numpy(np.float64), labels).value, 4)


def _refused(store: ObjectStore, runs: list[RunRecord]) -> list[dict[str, Any]]:
    refused = []
    for run in runs:
        if run.outcome == "refused":
            key = f"runs/{run.run_id}/quality.json"
            reasons = []
            if store.exists(key):
                report = QualityReport.parse(store.get(key), key)
                reasons = [check.reason for check in report.checks if not check.passed and check.severity == "critical"]
            refused.append({"batch": run.batches[0], "sentence": run.sentence, "reasons": reasons, "run": run.run_id})
    return refused


def _models(settings: Settings) -> dict[str, int]:
    from coda.registry.versions import list_versions

    counts: dict[str, int] = {}
    for version in list_versions(settings):
        counts[version.name] = counts.get(version.name, 0) + 1
    return counts


def _pages(settings: Settings, store: ObjectStore, folder: Path) -> dict[str, Any]:
    """Write the pages about drift beside the reports, and return where they begin and what they say of each source."""
    from coda.monitoring.batch_table import read, sources
    from coda.monitoring.site import build_site
    from coda.monitoring.site.lines import source_of
    from coda.trigger.site import now

    def put(key: str, body: bytes) -> None:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    build_site(store, now(settings), put, everything=True)
    told = [source_of(name, read(store, source=name)) for name in sources(store)]
    drift = {source.name: {"level": source.level, "sentence": source.sentence} for source in told}
    return {"pages": str(folder / "site" / "index.html"), "drift": drift}


def _fetch_reports(store: ObjectStore, folder: Path) -> list[str]:
    paths = []
    for item in sorted(store.list("reports/"), key=lambda item: item.key):
        if item.key.endswith(".html"):
            target = folder / Path(item.key).relative_to("reports")
            target.parent.mkdir(parents=True, exist_ok=True)
            store.download(item.key, target)
            paths.append(str(target))
    return paths


def average(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one summary for several seeds: accuracies are means, everything else is the first seed's."""
    merged: dict[str, Any] = json.loads(json.dumps(summaries[0]))
    if len(summaries) == 1:
        return merged
    for name, entry in merged["sources"].items():
        for method, scores in entry["methods"].items():
            every = [summary["sources"][name]["methods"].get(method) for summary in summaries]
            present = [scores_of for scores_of in every if scores_of is not None]
            for level in list(scores):
                values = np.array([scores_of[level] for scores_of in present])
                scores[level] = round(float(values.mean()), 4)
                scores[f"{level}_sd"] = round(float(values.std(ddof=1)), 4) if len(values) > 1 else 0.0
            scores["seeds"] = len(present)
    merged["seeds"] = [summary["seed"] for summary in summaries]
    merged["per_seed"] = summaries
    return merged
