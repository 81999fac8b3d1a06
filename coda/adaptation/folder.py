"""The candidates folder: what an adaptation leaves for the gate, the registry and the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter

from coda.adaptation.candidates import Candidate
from coda.adaptation.coda import Adapted
from coda.adaptation.drift import drift_of
from coda.adaptation.pairing_policy import AdaptedExtractor, PairingPolicy
from coda.adaptation.serving import Service
from coda.config.recorded import Fact, Facts
from coda.contracts.documents import document_at
from coda.errors import IntegrityError, Problem
from coda.evaluation.predictions.prediction_levels import field_table
from coda.networks.alignment import TokenStatistics
from coda.plates.index import write_parquet
from coda.plates.stored import Fields

_FACTS = TypeAdapter(dict[str, dict[str, Any]])


class _Pairs(BaseModel):
    without_partner: list[str] = []
    fallbacks: dict[str, int] = {}


class _Learned(BaseModel):
    """What of ``training.json`` reports show; the rest is for programs."""

    reason: str
    pairs: str = ""
    pair_report: _Pairs = _Pairs()
    adapted_oda: "_Learned | None" = None


_LOG = TypeAdapter(_Learned)

SERVED_AS = "served_as.json"
"""File of the candidates folder: what the candidates were served with."""


def write_answers(
    out: Path,
    candidates: Sequence[Candidate],
    services: Mapping[str, Service],
    fields: Fields,
    is_batch: NDArray[np.bool_],
    classes: Mapping[str, Sequence[str]],
    *,
    features: Path,
    groups: NDArray[np.str_],
) -> None:
    """Write fields, features, every candidate's predictions, and what the batch was aligned with.

    Args:
        out: Candidates folder.
        candidates: What was served.
        services: 'base' and, where there are any, 'adapted', 'adapted_oda' and 'incumbent' -> what that extractor made
            of the fields.
        fields: All fields.
        is_batch: Which of them belong to the batch; the archived ones are written beside.
        classes: Candidate -> the classes of its head.
        features: Folder for features, which gate and report alone read.
        groups: Groups that the tokens of the batch's fields were aligned in.
    """
    out.mkdir(parents=True, exist_ok=True)
    features.mkdir(parents=True, exist_ok=True)
    write_parquet(fields.table, out / "fields.parquet")
    wanted = set(groups.tolist())
    for name, service in services.items():
        np.save(features / f"features_{name}.npy", service.features, allow_pickle=False)
        if any(item.extractor == name and item.alignment != "none" for item in candidates):
            own = {group: found for group, found in service.statistics.items() if group in wanted}
            _write_statistics(statistics_folder(out, name), own)
    for candidate in candidates:
        service = services[candidate.extractor]
        served = service.ways[candidate.name]
        folder = out / candidate.name
        folder.mkdir(exist_ok=True)
        table = field_table(fields.table, served.probabilities, classes[candidate.name])
        write_parquet(table[is_batch].reset_index(drop=True), folder / "predictions.parquet")
        if not is_batch.all():
            write_parquet(table[~is_batch].reset_index(drop=True), folder / "archive_predictions.parquet")
        if candidate.alignment != "none":  # else they are its extractor's
            (features / candidate.name).mkdir(exist_ok=True)
            np.save(features / candidate.name / "features.npy", served.features, allow_pickle=False)


def statistics_folder(out: Path, extractor: str) -> Path:
    """Return the folder of the token statistics that an extractor's tokens are aligned with, by group."""
    return out / "alignment" / extractor


def read_features(features: Path, candidate: Candidate) -> NDArray[np.float32]:
    """Return what a candidate's head reads of each field, shape (fields, width).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such array.
    """
    own = features / candidate.name / "features.npy"
    path = own if own.is_file() else features / f"features_{candidate.extractor}.npy"
    found: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return found


def _write_statistics(folder: Path, statistics: Mapping[str, TokenStatistics]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {group: f"{number:03d}.safetensors" for number, group in enumerate(sorted(statistics))}
    for group, name in names.items():
        (folder / name).write_bytes(statistics[group].to_bytes())
    (folder / "groups.json").write_text(json.dumps(names, indent=2) + "\n")


def write_served_as(out: Path, facts: Facts) -> None:
    """Write ``served_as.json``: the parameters that the candidates are served with, and where each is recorded."""
    out.mkdir(parents=True, exist_ok=True)
    content = {path: asdict(fact) for path, fact in sorted(facts.items())}
    (out / SERVED_AS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_served_as(candidates: Path) -> dict[str, Fact]:
    """Return what `write_served_as` wrote; empty for a folder from before it was.

    Raises:
        IntegrityError: The document is not what was written.
    """
    path = candidates / SERVED_AS
    if not path.is_file():
        return {}
    remedy = "Run the adaptation again."
    told = document_at(path, _FACTS, expected="how the candidates are served", remedy=remedy)
    try:
        return {name: Fact(**fact) for name, fact in told.items()}
    except (ValueError, TypeError) as error:
        problem = Problem(str(path), str(error)[:200], "how the candidates are served", remedy)
        raise IntegrityError("The candidates do not say how they are served.", [problem]) from error


def write_log(
    out: Path, pairings: Mapping[AdaptedExtractor, PairingPolicy], trained: Mapping[AdaptedExtractor, Adapted]
) -> None:
    """Write ``training.json``: what was paired and why, loss and health over time, alarms, early stopping.

    Args:
        out: Candidates folder.
        pairings: Extractor that was to be adapted -> how.
        trained: What became of those that a candidate needed. A second one is told under its name.
    """
    numbers = _training(pairings["adapted"], trained.get("adapted"))
    for name in pairings:
        if name != "adapted" and name in trained:
            numbers[name] = _training(pairings[name], trained[name])
    (out / "training.json").write_text(json.dumps(numbers, indent=2) + "\n")


def _training(pairing: PairingPolicy, trained: Adapted | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {"method": pairing.method, "pairs": pairing.by, "reason": pairing.reason}
    numbers["pairable_share"] = pairing.pairable_share
    if trained is not None:
        losses = [entry["loss"] for entry in trained.log if "loss" in entry]
        numbers |= {
            "loss_first": losses[0],
            "loss_last": losses[-1],
            "iterations": trained.iterations,
            "seconds": trained.seconds,
            "samples_per_s": trained.samples_per_s,
            "alarms": list(trained.alarms),
            "pair_report": asdict(trained.pairs),
            "log": trained.log,
            "speed": trained.speed,
        }
        if trained.stopping is not None:
            numbers["stopping"] = trained.stopping
    return numbers


PAIRED_WITH = {
    "plate": "an image of another plate of that batch",
    "field": "another field of the same plate",
    "itself": "another view of the same image",
}
"""What an image without a wanted partner was paired with -> words for it (`coda.training.pairs`)."""


def pairing_remarks(folder: Path) -> list[str]:
    """Return what ``training.json`` of a candidates folder says about pairs, for people.

    Returns:
        What was paired and why; and, where treatments had no partner of the wanted kind, which they are and what was
        done instead. Nothing for a folder without that file.
    """
    path = folder / "training.json"
    if not path.is_file():
        return []
    log = document_at(path, _LOG, expected="how the adapted model learned", remedy="Run the adaptation again.")
    remarks = [f"How the adapted model learned: {log.reason}"]
    if log.adapted_oda is not None:
        remarks.append(f"How the second adapted model learned: {log.adapted_oda.reason}")
    alone, fallbacks = log.pair_report.without_partner, log.pair_report.fallbacks
    if alone:
        wider = [kind for kind in PAIRED_WITH if kind != log.pairs and fallbacks.get(kind)]
        instead = ", ".join(f"{PAIRED_WITH[kind]} ({fallbacks[kind]} fields)" for kind in wider)
        names = ", ".join(alone[:5]) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
        done = f"their images were paired with {instead}" if instead else "they were left out of the adaptation"
        one = "1 treatment is" if len(alone) == 1 else f"{len(alone)} treatments are"
        remarks.append(f"{one} in one {log.pairs} only ({names}): {done}.")
    return remarks


def write_drift(
    out: Path, fields: Fields, services: Mapping[str, Service], sources: Mapping[str, TokenStatistics]
) -> None:
    """Write ``drift.json``: how far the batch lies from the source's tokens, before and after adaptation.

    Args:
        out: Candidates folder.
        fields: All fields.
        services: What each extractor made of the fields.
        sources: The same names -> statistics of the tokens that this extractor's head was trained on.
    """
    numbers = {
        name: drift_of(fields.table, service.features, service.statistics, sources[name])
        for name, service in services.items()
    }
    (out / "drift.json").write_text(json.dumps(numbers, indent=2) + "\n")
