"""The candidates folder: what an adaptation leaves for the gate, the registry and the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coda.adaptation.candidates import Candidate
from coda.adaptation.drift import drift_of
from coda.adaptation.ladder import Rung
from coda.adaptation.serving import Service
from coda.evaluation.levels import field_table
from coda.networks.alignment import TokenStatistics
from coda.plates.fieldset import FieldSet
from coda.plates.index import write_parquet
from coda.training.engine import DinoResult


def write_answers(
    out: Path,
    candidates: Sequence[Candidate],
    services: Mapping[str, Service],
    fields: FieldSet,
    is_batch: NDArray[np.bool_],
    classes: Mapping[str, Sequence[str]],
) -> None:
    """Write fields, features and every candidate's predictions.

    Args:
        out: Candidates folder.
        candidates: What was served.
        services: 'base' and, where there is one, 'adapted' -> what that extractor made of the fields.
        fields: All fields.
        is_batch: Which of them belong to the batch; the archived ones are written beside.
        classes: Alignment a head was trained with -> its classes.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_parquet(fields.table, out / "fields.parquet")
    for name, service in services.items():
        np.save(out / f"features_{name}.npy", service.features, allow_pickle=False)
    for candidate in candidates:
        service = services[candidate.extractor]
        served = service.ways[candidate.name]
        folder = out / candidate.name
        folder.mkdir(exist_ok=True)
        table = field_table(fields.table, served.probabilities, classes[candidate.head])
        write_parquet(table[is_batch].reset_index(drop=True), folder / "predictions.parquet")
        if not is_batch.all():
            write_parquet(table[~is_batch].reset_index(drop=True), folder / "archive_predictions.parquet")
        np.save(folder / "features.npy", served.features, allow_pickle=False)
        if candidate.alignment != "none":
            _write_statistics(folder / "alignment", service.statistics)


def _write_statistics(folder: Path, statistics: Mapping[str, TokenStatistics]) -> None:
    folder.mkdir(exist_ok=True)
    names = {group: f"{number:03d}.safetensors" for number, group in enumerate(sorted(statistics))}
    for group, name in names.items():
        (folder / name).write_bytes(statistics[group].to_bytes())
    (folder / "groups.json").write_text(json.dumps(names, indent=2) + "\n")


def write_log(out: Path, rung: Rung, trained: DinoResult | None) -> None:
    """Write ``training.json``: what the ladder chose and why, loss and health over time, alarms."""
    numbers: dict[str, Any] = {"method": rung.method, "pairs": rung.by, "reason": rung.reason}
    numbers["pairable_share"] = rung.pairable_share
    if trained is not None:
        numbers |= {
            "loss_first": trained.log[0]["loss"],
            "loss_last": trained.log[-1]["loss"],
            "seconds": trained.seconds,
            "samples_per_s": trained.samples_per_s,
            "alarms": list(trained.alarms),
            "pair_report": asdict(trained.pairs),
            "log": trained.log,
        }
    (out / "training.json").write_text(json.dumps(numbers, indent=2) + "\n")


def write_drift(out: Path, fields: FieldSet, services: Mapping[str, Service], source: TokenStatistics) -> None:
    """Write ``drift.json``: how far the batch lies from the source's tokens, before and after adaptation."""
    numbers = {
        name: drift_of(fields.table, service.features, service.statistics, source) for name, service in services.items()
    }
    (out / "drift.json").write_text(json.dumps(numbers, indent=2) + "\n")
