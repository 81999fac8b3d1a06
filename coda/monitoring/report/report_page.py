"""Puts the page together from its tables and pictures, and writes it as one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

import coda
from coda.config import Params, params_digest
from coda.contracts import StepRecord
from coda.contracts.changed import WhatChanged
from coda.contracts.channels import colours_of, nuclei_of, roles_of, tints_of, words_of
from coda.durable import give_name
from coda.errors import ConfigError, Problem
from coda.evaluation.predictions.prediction_levels import TREATED
from coda.monitoring.facts import summarise
from coda.monitoring.inputs import BatchInputs, Outputs, ReportInputs, gather
from coda.monitoring.report import decision, report_tables
from coda.monitoring.report.composites import draw_examples, read_examples
from coda.monitoring.report.data_uris import Picture
from coda.monitoring.report.embeddings import draw_embeddings
from coda.monitoring.report.heatmaps import draw_heat_maps
from coda.monitoring.report.lead_sentences import headline
from coda.monitoring.report.typical_fields import changed_section, draw_pairs
from coda.monitoring.summaries import BatchSummary
from coda.plates.outputs import PLATES_SHOWN

MAX_PICTURED_BATCHES = 4
MAX_QUARANTINED = 40
MAX_COMPOUNDS = 40


@dataclass(frozen=True)
class Page:
    """A written report.

    Attributes:
        path: The file.
        sentence: The verdict in one sentence.
        summaries: Numbers of each batch, for history and metrics.
        inputs: What it was made from.
        pairs: Pictures of the most typical fields of before and of now.
    """

    path: Path
    sentence: str
    summaries: tuple[BatchSummary, ...]
    inputs: ReportInputs
    pairs: tuple[Picture, ...] = ()


def write_report(
    dataset: Path,
    out: Path,
    *,
    params: Params | None,
    run_id: str,
    **outputs: Unpack[Outputs],
) -> Page:
    """Read the outputs of the steps and write their report.

    Args:
        dataset: Dataset folder with at least one batch.
        out: HTML file to write.
        params: Parameters of the run; None where they are not at hand, and the release is asked for their digest.
        run_id: Run to name.
        **outputs: What the run's steps wrote.

    Raises:
        ContractError: There is no batch, or a document breaks its contract.
    """
    return write_page(gather(dataset, **outputs), out, params=params, run_id=run_id)


def _made_with(params: Params | None, inputs: ReportInputs, run_id: str) -> dict[str, str]:
    """Return the parameters of the run as the page names them: never today's in the place of the run's own.

    Raises:
        ConfigError: The run's release names other parameters.
    """
    recorded = inputs.release.params_digest if inputs.release and inputs.release.run_id == run_id else None
    if params is None:
        return {"Parameters digest": recorded or "not given to this report"}
    digest = params_digest(params)
    if recorded is not None and digest != recorded:
        remedy = "Leave the parameters out, or give those of the run (runs/<run_id>/params.json)."
        problem = Problem(f"parameters of run {run_id}", f"digest {digest}", f"{recorded}, as its release says", remedy)
        raise ConfigError("These are not the parameters of the run that is reported.", [problem])
    return {"Parameters digest": digest, "Seed": str(params.seed)}


def write_page(
    inputs: ReportInputs,
    out: Path,
    *,
    params: Params | None,
    run_id: str,
    history: Mapping[str, Sequence[BatchSummary]] | None = None,
    steps: Sequence[StepRecord] = (),
    at: datetime | None = None,
) -> Page:
    """Write the page whole or not at all.

    Args:
        inputs: What it is about.
        out: HTML file to write.
        params: Parameters of the run; None where they are not at hand, and the release is asked for their digest.
        run_id: Run to name.
        history: Earlier summaries by source.
        steps: Steps of the run that have ended.
        at: Time of the report; now when not given.
    """
    at = at or datetime.now(UTC)
    past = history or {}
    summaries = tuple(summarise(inputs, batch, at) for batch in inputs.batches)
    verdict = headline(inputs, run_id)
    pairs = _pairs(inputs)
    run = {
        "Run": run_id,
        "Written": f"{at:%Y-%m-%d %H:%M} UTC",
        "Program": f"coda {coda.__version__}",
        **_made_with(params, inputs, run_id),
    }
    context: dict[str, Any] = {
        "headline": verdict,
        "title": _title(inputs),
        "style": _resource("style.css"),
        "batches": [
            _batch_section(batch, summary, past.get(batch.manifest.source, ()), pictured=k < MAX_PICTURED_BATCHES)
            for k, (batch, summary) in enumerate(zip(inputs.batches, summaries, strict=True))
        ],
        "several": len(inputs.batches) > 1,
        "gate": inputs.gate,
        "gate_tables": decision.gate_tables(inputs.gate) if inputs.gate else [],
        "comparisons": decision.comparison_rows(inputs.gate) if inputs.gate else [],
        "scopes": decision.scope_rows(inputs.gate) if inputs.gate else [],
        "deciders": decision.deciders(inputs.gate) if inputs.gate else "",
        "command": decision.promotion_command(run_id),
        "embedding": _embedding(inputs),
        "changed": changed_section(changed, pairs) if (changed := _changed(inputs)) is not None else None,
        "predictions": _predictions(inputs),
        "metrics": report_tables.metric_rows(inputs.evaluation),
        "release": inputs.release,
        "provenance": report_tables.provenance_rows(inputs.batches, inputs.release, inputs.gate, run),
        "steps": report_tables.step_rows(steps),
        "at": at,
        "max_plates": PLATES_SHOWN,
        "max_quarantined": MAX_QUARANTINED,
    }
    html = _template().render(context)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(out.name + ".part")
    draft.write_text(html, encoding="utf-8")
    give_name(draft, out)
    return Page(out, verdict.sentence, summaries, inputs, tuple(pairs))


def _changed(inputs: ReportInputs) -> WhatChanged | None:
    return inputs.candidates.changed if inputs.candidates else None


def _pairs(inputs: ReportInputs) -> list[Picture]:
    changed = _changed(inputs)
    if changed is None or inputs.candidates is None or inputs.candidates.pictures is None:
        return []
    batch = next(batch for batch in inputs.batches if batch.manifest.batch == changed.batch)
    return draw_pairs(changed, inputs.candidates.pictures, _tints(batch, changed.channels))


def _tints(batch: BatchInputs, channels: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    manifest = batch.manifest
    named = manifest.renamed(batch.ingest.renamed) if batch.ingest else manifest
    return tints_of(channels, roles_of(channels, named.roles), colours_of(named.channels, named.colours))


def _title(inputs: ReportInputs) -> str:
    if len(inputs.batches) == 1:
        return f"Batch {inputs.batches[0].manifest.batch_id}"
    sources = sorted({batch.manifest.source for batch in inputs.batches})
    return f"{len(inputs.batches)} batches of {', '.join(sources)}"


def _batch_section(
    batch: BatchInputs, summary: BatchSummary, history: Sequence[BatchSummary], *, pictured: bool
) -> dict[str, Any]:
    manifest = batch.manifest
    delivered = [plate.plate for plate in manifest.plates]
    seen = set(batch.seen["Metadata_Plate"].astype(str)) if len(batch.seen) else set()
    shown = [plate for plate in delivered if plate in seen][:PLATES_SHOWN] if pictured else []
    failed = report_tables.failed_checks(batch)
    named = manifest.renamed(batch.ingest.renamed) if batch.ingest else manifest
    channels = batch.ingest.channels if batch.ingest else named.channels
    roles, colours = roles_of(channels, named.roles), colours_of(named.channels, named.colours)
    tints = tints_of(channels, roles, colours)
    return {
        "id": manifest.batch_id,
        "anchor": f"{manifest.source}-{manifest.batch}",
        "manifest": manifest,
        "quality": batch.quality,
        "plates": report_tables.plate_rows(batch),
        "failed": failed,
        "passed": [check for check in batch.quality_checks if check.passed],
        "quarantined": batch.quality.quarantined if batch.quality else (),
        "notes": batch.ingest.notes if batch.ingest else (),
        "problems": [] if failed or not batch.ingest else list(batch.ingest.problems),
        "corrected": report_tables.corrected_plates(batch),
        "examples": [draw_examples(examples, tints) for examples in read_examples(batch.folder, PLATES_SHOWN)]
        if pictured
        else [],
        "heat_maps": draw_heat_maps(batch.seen, shown, manifest.plate_wells),
        "not_shown": len(seen) - len(shown),
        "acquisition": report_tables.acquisition_rows(summary, history),
        "drift": report_tables.drift_rows(summary, history),
        "history": len(history),
        "channels": channels,
        "colours": words_of(channels, roles, colours),
        "nuclei": nuclei_of(roles) or "shown by no channel: cells were not counted, swapped stains not looked for",
    }


def _embedding(inputs: ReportInputs) -> Any:
    adapted = inputs.candidates
    if adapted is None or adapted.fields.empty:
        return None
    chosen = inputs.gate.chosen if inputs.gate else None
    rows = {when: adapted.features[when] for when in ("before", "after") if when in adapted.features}
    # "after" is what the first adapted extractor sees: that of CODA where ODA was adapted beside it
    if chosen is not None and chosen in adapted.features:
        rows["served"] = adapted.features[chosen]
    return draw_embeddings(rows, adapted.fields, chosen or "")


def _predictions(inputs: ReportInputs) -> dict[str, Any] | None:
    wells = inputs.predictions.get("well")
    if wells is None or wells.empty or not (wells["predicted"] != "").any():
        return None
    classes = report_tables.class_rows(wells)
    size = inputs.batches[0].manifest.plate_wells
    compounds = inputs.predictions.get("compound")
    rows = report_tables.compound_rows(compounds, MAX_COMPOUNDS) if compounds is not None else []
    plates = int(wells["Metadata_Plate"].nunique())
    return {
        "classes": classes,
        "maps": report_tables.plate_maps(wells, classes, size, PLATES_SHOWN),
        "compounds": rows,
        "more_compounds": max(0, (len(compounds) if compounds is not None else 0) - len(rows)),
        "wells": int((wells["predicted"] != "").sum()),
        "unsure": _unsure(wells),
        "more_plates": max(0, plates - PLATES_SHOWN),
        "top": max(classes, key=lambda row: row.wells),
    }


def _unsure(wells: pd.DataFrame) -> list[tuple[str, int]]:
    """Return (reason, wells) of the treated wells without an answer to rely on, the frequent reasons first."""
    if "abstain_reason" not in wells:
        return []
    reasons = wells.loc[wells["Metadata_pert_type"].isin(TREATED), "abstain_reason"].fillna("").astype(str)
    kinds = reasons[reasons != ""].str.split(":", n=1).str[0]
    return [(str(kind), int(count)) for kind, count in kinds.value_counts().items()]


def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "percent": _percent, "signed": _signed}
    return environment.from_string(_resource("template.html.j2"))


def _resource(name: str) -> str:
    return files("coda.monitoring.report").joinpath(name).read_text(encoding="utf-8")


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _signed(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:+.2f}".replace("-", "−")


def _percent(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.0%}"
