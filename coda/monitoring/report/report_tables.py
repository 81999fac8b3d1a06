"""Tables of the page: what arrived, what failed, what was predicted, where it all comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from coda.contracts import GateReport, ReleaseRecord, StepRecord
from coda.evaluation.predictions.prediction_levels import TREATED, classes_of
from coda.monitoring.acquisition import STATISTICS
from coda.monitoring.inputs import BatchInputs
from coda.monitoring.report.data_uris import COLOURS
from coda.monitoring.summaries import BatchSummary, accepted, acquisition_z
from coda.plates.layout import FORMATS, parse_well, row_name

SEVERITY_WORDS = {"critical": "must be corrected", "warning": "look closer", "info": "for information"}


def plate_rows(batch: BatchInputs) -> list[dict[str, Any]]:
    """Return one row a plate: what was expected, used and set aside, and why a plate was refused."""
    outcomes = {plate.plate: plate for plate in batch.ingest.plates} if batch.ingest else {}
    controls = _controls(batch)
    refused = set(batch.quality.plates_refused) if batch.quality else set()
    rows = []
    for entry in batch.manifest.plates:
        outcome = outcomes.get(entry.plate)
        reasons = [outcome.reason] if outcome and outcome.reason else []
        reasons += [
            check.reason
            for check in batch.quality_checks
            if not check.passed and check.severity == "critical" and entry.plate in check.where and not reasons
        ]
        rows.append(
            {
                "plate": entry.plate,
                "expected": outcome.fields_expected if outcome else None,
                "used": 0 if entry.plate in refused else outcome.fields_accepted if outcome else None,
                "controls": controls.get(entry.plate),
                "refused": entry.plate in refused or bool(outcome and outcome.outcome == "refused"),
                "reason": reasons[0] if reasons else "",
                "illumination": _illumination(outcome.illumination) if outcome else "",
            }
        )
    return rows


def _controls(batch: BatchInputs) -> dict[str, int]:
    """Return the imaged negative-control wells of each plate, refused or not: too few may be why it was refused."""
    if batch.seen.empty:
        return {}
    marked = batch.seen.assign(control=batch.seen["Metadata_Well"].where(batch.seen["Metadata_pert_type"] == "negcon"))
    return {str(plate): int(count) for plate, count in marked.groupby("Metadata_Plate")["control"].nunique().items()}


def corrected_plates(batch: BatchInputs) -> set[str]:
    """Return the plates whose images were corrected for uneven light."""
    outcomes = batch.ingest.plates if batch.ingest else ()
    return {outcome.plate for outcome in outcomes if outcome.illumination in {"estimated", "given", "earlier"}}


def _illumination(origin: str) -> str:
    words = {
        "estimated": "corrected",
        "given": "corrected by the delivered functions",
        "earlier": "corrected by the function of an earlier plate",
        "prepared": "corrected before delivery",
        "off": "correction switched off",
        "too_few_fields": "not corrected (too few fields)",
        "none": "none",
    }
    return words.get(origin, origin)


def failed_checks(batch: BatchInputs) -> list[dict[str, Any]]:
    """Return the failed checks, the severe ones first, each with its meaning and what to do."""
    order = {"critical": 0, "warning": 1, "info": 2}
    failed = [check for check in batch.quality_checks if not check.passed]
    return [
        {
            **check.model_dump(),
            "meaning": SEVERITY_WORDS[check.severity],
            "observed": check.observed.rstrip("."),
            "expected": check.expected.rstrip("."),
        }
        for check in sorted(failed, key=lambda check: (order[check.severity], check.where))
    ]


def acquisition_rows(summary: BatchSummary, history: Sequence[BatchSummary]) -> list[dict[str, Any]]:
    """Return one row a statistic and stain: its median, the history's median, and the distance."""
    distance = acquisition_z(summary, history)
    earlier = accepted(history, instrument=summary.instrument)
    rows = []
    for statistic, words in STATISTICS.items():
        cells = []
        for key, value in summary.acquisition.items():
            stain, _, name = key.partition("/")
            if name == statistic:
                past = [old.acquisition[key] for old in earlier if key in old.acquisition]
                cells.append({"stain": stain, "value": value, "z": distance.get(key), "past": _median(past)})
        if cells:
            rows.append({"statistic": words, "cells": cells})
    return rows


def drift_rows(summary: BatchSummary, history: Sequence[BatchSummary]) -> list[dict[str, Any]]:
    """Return one row for each distance in the features, before and after adaptation, with the history's median."""
    words = {
        "frechet_to_source": "this batch and the training laboratory, all wells (0: alike; 1: as far as wells differ)",
        "mmd_controls": "negative controls of different batches or plates (0: alike; towards 2: entirely apart)",
    }
    past = accepted(history)
    return [
        {
            "what": words[name],
            "before": summary.drift_before.get(name),
            "after": summary.drift_after.get(name),
            "past": _median([old.drift_before[name] for old in past if name in old.drift_before]),
            "batches": sum(name in old.drift_before for old in past),
        }
        for name in words
        if name in summary.drift_before or name in summary.drift_after
    ]


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


@dataclass(frozen=True)
class ClassRow:
    """One predicted class: its number on the plate maps, its colour, and how many wells it has."""

    number: int
    name: str
    colour: str
    wells: int
    confidence: float


def class_rows(wells: pd.DataFrame) -> list[ClassRow]:
    """Return the classes of a well table, numbered from 1 in the order of the head; controls are not counted."""
    classes = classes_of(wells)
    treated = wells["Metadata_pert_type"].isin(TREATED)
    wells = wells[treated] if treated.any() else wells
    counts, means = wells["predicted"].value_counts(), wells.groupby("predicted")["top_probability"].mean()
    return [
        ClassRow(k + 1, name, COLOURS[k % len(COLOURS)], int(counts.get(name, 0)), float(means.get(name, np.nan)))
        for k, name in enumerate(classes)
    ]


def plate_maps(wells: pd.DataFrame, classes: Sequence[ClassRow], size: int, most: int) -> list[dict[str, Any]]:
    """Return the predicted classes in plate layout, at most so many plates."""
    by_name = {row.name: row for row in classes}
    n_rows, n_columns = FORMATS[size]
    maps = []
    for plate, members in list(wells.groupby("Metadata_Plate", sort=True))[:most]:
        grid: list[list[dict[str, Any] | None]] = [[None] * n_columns for _ in range(n_rows)]
        for row in members.to_dict("records"):
            place = parse_well(str(row["Metadata_Well"]))
            found = by_name.get(str(row["predicted"]))
            if place is not None and place[0] < n_rows and place[1] < n_columns and found is not None:
                grid[place[0]][place[1]] = {
                    "number": found.number, "colour": found.colour, "name": found.name, "well": row["Metadata_Well"],
                    "confidence": float(row["top_probability"]), "compound": row.get("Metadata_Compound", ""),
                    "control": row.get("Metadata_pert_type") == "negcon", "why": str(row.get("abstain_reason") or ""),
                }  # fmt: skip
            elif place is not None and place[0] < n_rows and place[1] < n_columns:
                grid[place[0]][place[1]] = {
                    "number": "",
                    "well": row["Metadata_Well"],
                    "why": str(row.get("abstain_reason") or "No prediction."),
                }
        rows = [(row_name(k), cells) for k, cells in enumerate(grid)]
        maps.append({"plate": plate, "rows": rows, "columns": range(1, n_columns + 1), "large": n_columns > 12})
    return maps


def compound_rows(compounds: pd.DataFrame, most: int) -> list[dict[str, Any]]:
    """Return the compounds with the most confident predictions first, at most so many."""
    if compounds.empty:
        return []
    compounds = compounds[compounds["predicted"] != ""]
    ordered = compounds.sort_values(["top_probability", "Metadata_Compound"], ascending=[False, True]).head(most)
    names = ["Metadata_Compound", "predicted", "top_probability", "n_wells"]
    return [{name: row.get(name) for name in names} for row in ordered.to_dict("records")]


def provenance_rows(
    batches: Sequence[BatchInputs], release: ReleaseRecord | None, gate: GateReport | None, run: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return (what, value) for everything that names where the page comes from."""
    rows = list(run.items())
    for batch in batches:
        rows.append((f"Manifest digest, {batch.manifest.batch_id}", batch.digest))
        if batch.quality:
            rows.append((f"Quality suite, {batch.manifest.batch_id}", batch.quality.suite_version))
    if gate is not None:
        rows += [("Gate policy", f"{gate.policy_version}, digest {gate.policy_digest or 'not recorded'}")]
        rows += [("Gate report digest", gate.digest())]
    if release is not None:
        rows += [
            ("Release", release.release_id),
            ("Method", release.method),
            *((f"{what} model", f"{ref.name}, version {ref.version}, digest {ref.digest}")
              for what, ref in (("Extractor", release.extractor), ("Head", release.head))),
            ("Alignment of features", release.alignment),
            ("Adapted from", release.base_release or "nothing: trained from the start"),
            ("Released by", release.approver),
        ]  # fmt: skip
        for data in release.data:
            rows.append((f"Data revision, {data.source}/{data.batch}", f"{data.revision}, digest {data.digest}"))
    return rows


def step_rows(steps: Sequence[StepRecord]) -> list[tuple[str, float]]:
    """Return (step, seconds) of the steps that have ended."""
    return [(step.name, step.seconds) for step in steps]


def metric_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return (name, value) of all numbers in a metrics document, nested names joined by ' / '."""
    rows: list[tuple[str, float]] = []
    for name, value in evaluation.items():
        if isinstance(value, Mapping):
            rows += [(f"{name} / {inner}", number) for inner, number in metric_rows(value)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            rows.append((str(name), float(value)))
    return rows
