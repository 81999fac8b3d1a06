"""Every number of a batch, as one record beside its report: by plate and stain, class, candidate, control or step.

The record is what the table of batches is made from (`coda.monitoring.batch_row`), now and when it is made again.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from coda.contracts import GateReport, StepRecord
from coda.contracts.base import Contract, Digest, Part, Slug
from coda.contracts.changed import WhatChanged
from coda.contracts.gate import Measure
from coda.contracts.quality import PlateFigures
from coda.evaluation.metrics.marginal_entropy import marginal_entropy
from coda.evaluation.metrics.top_class import top_class_share
from coda.evaluation.predictions.prediction_levels import TREATED, classes_of, probabilities_of
from coda.monitoring.acquisition import medians
from coda.monitoring.inputs import BatchInputs, ReportInputs
from coda.monitoring.summaries import BatchSummary, accepted, limits, report_prefix
from coda.quality.stats import cells_column

CONTROLS = ("negcon", "poscon")
"""Types of wells whose numbers are kept by plate: `negcon_p95`, `poscon_cells`, ..."""

FIGURES = (
    "wells_sparse_share", "edge_effect", "row_effect", "column_effect", "ssmd", "robust_z_prime", "replicate_spread",
    "negcon_cv", "negcon_cells_cv",
)  # fmt: skip
"""Figures of a plate (`PlateFigures`) that are kept under their own names."""


MOST_COMPOUNDS = 256
"""Compounds of a batch whose answers are kept, besides positive controls: by the digest of their names, so that of
those that come again in other batches the same ones are kept."""


class Number(Part):
    """One number: of a batch where no plate is named, else of that plate."""

    measure: str
    value: float | None = Field(default=None, description="None where there is only `text`.")
    plate: str = ""
    subject: str = Field(default="", description="Stain, class, candidate, compound, step, ... that it is of.")
    low: float | None = Field(default=None, description="Lower end of its interval.")
    high: float | None = Field(default=None, description="Upper end of its interval.")
    limit_low: float | None = Field(default=None, description="Smallest usual value when the batch was judged.")
    limit_high: float | None = Field(default=None, description="Largest usual value when the batch was judged.")
    n: int | None = Field(default=None, ge=0, description="Units behind it.")
    text: str = Field(default="", description="Its name, where it has one: a predicted class.")


class BatchNumbers(Contract):
    """Every number of one batch version, as its report knew them."""

    source: Slug
    batch: Slug
    manifest_digest: Digest
    run_id: str
    pipeline: str
    sentence: str = Field(default="", description="Verdict and decision as sentences.")
    numbers: tuple[Number, ...] = ()

    @property
    def key(self) -> str:
        """Key of the record in the platform bucket."""
        return numbers_key(self.source, self.batch, self.manifest_digest)


def numbers_key(source: str, batch: str, digest: str) -> str:
    """Return where the report of one batch version keeps its numbers."""
    return f"{report_prefix(source, batch, digest)}numbers.json"


def collect(
    inputs: ReportInputs,
    batch: BatchInputs,
    summary: BatchSummary,
    history: Sequence[BatchSummary],
    steps: Sequence[StepRecord],
    *,
    run_id: str,
) -> BatchNumbers:
    """Return every number of one batch of a run; what cannot be known is left out, never reported as zero."""
    alone = len(inputs.batches) == 1
    found = [
        *_batch(batch),
        *_plates(batch),
        *_acquisition(batch, summary, history),
        *_controls(batch.index),
        *(Number(measure=f"drift_before/{name}", value=value) for name, value in summary.drift_before.items()),
        *(Number(measure=f"drift_after/{name}", value=value) for name, value in summary.drift_after.items()),
        *(answers(inputs) if alone else ()),
        *(changed_numbers(inputs.candidates.changed) if inputs.candidates and is_about(inputs, batch) else ()),
        *(gate_numbers(inputs.gate) if inputs.gate is not None and summary.outcome else ()),
        *training_numbers(inputs),
        *(Number(measure="step_seconds", subject=step.name, value=step.seconds) for step in steps),
    ]
    gate = inputs.gate.sentence if inputs.gate is not None and summary.outcome else ""
    return BatchNumbers(
        source=summary.source,
        batch=summary.batch,
        manifest_digest=summary.manifest_digest,
        run_id=run_id,
        pipeline=inputs.pipeline,
        sentence=gate or (batch.quality.sentence if batch.quality else ""),
        numbers=tuple(number for number in found if number.value is None or np.isfinite(number.value)),
    )


def is_about(inputs: ReportInputs, batch: BatchInputs) -> bool:
    """Return whether the candidates' comparison with earlier batches is of this batch."""
    changed = inputs.candidates.changed if inputs.candidates else None
    manifest = batch.manifest
    return changed is not None and (changed.source, changed.batch) == (manifest.source, manifest.batch)


def changed_numbers(changed: WhatChanged | None) -> Iterator[Number]:
    """What tells the batch's fields from earlier ones: by all numbers, by each stain, and of each plate."""
    if changed is None:
        return
    yield Number(measure="two_sample/against", value=len(changed.against), text=changed.why_not)
    for told in (changed.whole, *changed.parts):
        if told is None:
            continue
        subject = "" if told.by == "all" else told.by
        yield Number(measure="two_sample/accuracy", subject=subject, value=told.accuracy, n=changed.fields)
        if told.p_value is not None:
            # with fewer batches to compare with it is another number: no line over batches should hold both
            yield Number(
                measure="two_sample/separation", subject=subject, value=told.separation, n=changed.fields,
                limit_low=min(told.earlier), limit_high=max(told.earlier),
            )  # fmt: skip
            yield Number(measure="two_sample/p", subject=subject, value=told.p_value, n=len(told.earlier))
    for plate in changed.plates:
        yield Number(measure="two_sample/told", plate=plate.plate, value=plate.told, n=plate.fields)


def _batch(batch: BatchInputs) -> Iterator[Number]:
    yield Number(measure="plates", value=len(batch.manifest.plates))
    if batch.ingest is not None:
        yield Number(measure="bytes", value=sum(plate.store_bytes for plate in batch.ingest.plates))
    report = batch.quality
    if report is None:
        return
    yield Number(measure="plates_accepted", value=len(report.plates_accepted))
    yield Number(measure="fields_expected", value=report.fields_expected)
    yield Number(measure="fields_accepted", value=report.fields_accepted)
    if report.fields_expected:
        aside = max(report.fields_expected - report.fields_accepted, 0)
        yield Number(measure="quarantined_share", value=aside / report.fields_expected, n=report.fields_expected)
    for severity in ("critical", "warning", "info"):
        failed = [check for check in report.checks if not check.passed and check.severity == severity]
        yield Number(measure="checks_failed", subject=severity, value=len(failed), n=len(report.checks))
    for check in report.checks:
        if not check.passed:
            where = f"{check.name}, {check.where}"
            yield Number(measure="check", subject=where, text=f"{check.severity}: {check.reason}")


def _plates(batch: BatchInputs) -> Iterator[Number]:
    for outcome in batch.ingest.plates if batch.ingest else ():
        plate = outcome.plate
        yield Number(measure="fields_expected", plate=plate, value=outcome.fields_expected)
        yield Number(measure="fields_accepted", plate=plate, value=outcome.fields_accepted)
        yield Number(measure="bytes", plate=plate, value=outcome.store_bytes)
    for figures in batch.quality.plates if batch.quality else ():
        yield from _figures(figures)
    for plate in batch.quality.plates_refused if batch.quality else ():
        yield Number(measure="refused", plate=plate, value=1)


def _figures(figures: PlateFigures) -> Iterator[Number]:
    plate = figures.plate
    for name in FIGURES:
        if (value := getattr(figures, name)) is not None:
            yield Number(measure=name, plate=plate, value=value)
    for name, values in (("ssmd", figures.ssmd_stated), ("robust_z_prime", figures.robust_z_prime_stated)):
        for statistic, value in values.items():
            yield Number(measure=f"{name}_stated", plate=plate, subject=statistic, value=value)


def _acquisition(batch: BatchInputs, summary: BatchSummary, history: Sequence[BatchSummary]) -> Iterator[Number]:
    """Medians over fields, by stain: of the batch with the limits of its history, and of each plate."""
    earlier = accepted(history, instrument=summary.instrument)
    for key, value in summary.acquisition.items():
        stain, _, statistic = key.partition("/")
        low, high = limits([past.acquisition[key] for past in earlier if key in past.acquisition]) or (None, None)
        yield Number(measure=statistic, subject=stain, value=value, limit_low=low, limit_high=high)
    if batch.index.empty:
        return
    cells = cells_column(batch.index.columns)
    if cells is not None:
        yield from _median("cells", "", batch.index[cells])
    for plate, fields in batch.index.groupby("Metadata_Plate"):
        for (stain, statistic), value in medians(fields).items():
            yield Number(measure=statistic, subject=stain, plate=str(plate), value=value, n=len(fields))
        if cells is not None:
            yield from _median("cells", str(plate), fields[cells])


def _controls(index: pd.DataFrame) -> Iterator[Number]:
    """What the control wells of each plate show: brightness and bright structures by stain, and cells."""
    if index.empty:
        return
    cells = cells_column(index.columns)
    for kind in CONTROLS:
        for plate, fields in index[index["Metadata_pert_type"] == kind].groupby("Metadata_Plate"):
            for (stain, statistic), value in medians(fields).items():
                if statistic in {"p50", "p95"}:
                    name, wells = f"{kind}_{statistic}", int(fields["Metadata_Well"].nunique())
                    yield Number(measure=name, subject=stain, plate=str(plate), value=value, n=wells)
            if cells is not None:
                yield from _median(f"{kind}_cells", str(plate), fields[cells])


def _median(measure: str, plate: str, values: "pd.Series[Any]") -> Iterator[Number]:
    known = values.to_numpy(dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known):
        yield Number(measure=measure, plate=plate, value=float(np.median(known)), n=len(known))


def answers(inputs: ReportInputs) -> Iterator[Number]:
    """What was predicted: how the answers spread, how sure they are, and what the positive controls were called."""
    fields = inputs.predictions.get("field")
    if fields is None or fields.empty or len(classes_of(fields)) < 2:
        return
    treated = fields["Metadata_pert_type"].isin(TREATED)
    fields = fields[treated] if treated.any() else fields  # controls belong to no mechanism and would dominate
    fields = fields[fields["predicted"] != ""] if "predicted" in fields else fields
    if fields.empty:
        return  # the gate refused: there are no answers to describe
    p = probabilities_of(fields)
    if not np.isfinite(p).all():
        return  # withheld: nothing was predicted
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1).mean() / np.log(p.shape[1])
    yield Number(measure="top_class_share", value=top_class_share(p).value)
    yield Number(measure="marginal_entropy", value=marginal_entropy(p).value)
    yield Number(measure="mean_entropy", value=float(entropy))
    yield Number(measure="confidence", value=float(p.max(axis=1).mean()), n=len(p))
    before = inputs.candidates.predictions.get("unadapted") if inputs.candidates else None
    if before is not None and "image_id" in fields and "image_id" in before:
        # by name: a release of an earlier training run may know other mechanisms
        now = fields[["image_id"]].assign(now=_named(fields))
        both = now.merge(before[["image_id"]].assign(then=_named(before)), on="image_id")
        if len(both):
            yield Number(measure="changed_share", value=float((both["now"] != both["then"]).mean()), n=len(both))
    yield from _classes(inputs)


def _classes(inputs: ReportInputs) -> Iterator[Number]:
    wells, compounds = inputs.predictions.get("well"), inputs.predictions.get("compound")
    if wells is not None and not wells.empty:
        chosen = wells[wells["Metadata_pert_type"].isin(TREATED)]
        chosen = chosen if len(chosen) else wells
        if "abstain_reason" in chosen:
            unsure = chosen["abstain_reason"].fillna("").astype(str) != ""
            yield Number(measure="abstained_share", value=float(unsure.mean()), n=len(chosen))
        said = chosen[chosen["predicted"] != ""]["predicted"].astype(str)
        for name in classes_of(wells):
            count = int((said == name).sum())
            if len(said):
                yield Number(measure="class_share", subject=name, value=count / len(said), n=len(said))
    if compounds is not None and "Metadata_pert_type" in compounds:
        yield from compound_answers(compounds)


def compound_answers(compounds: pd.DataFrame) -> Iterator[Number]:
    """Return what positive controls and `MOST_COMPOUNDS` others were called, to be compared with other batches.

    Args:
        compounds: `Metadata_Compound`, `Metadata_pert_type`, `predicted` and `top_probability`, one row a compound.
    """
    answered = compounds[compounds["predicted"] != ""]
    control = answered["Metadata_pert_type"] == "poscon"
    for measure, rows in (("reference", answered[control]), ("compound", answered[~control])):
        told = [
            Number(measure=measure, subject=str(name), value=float(top), text=str(said))
            for name, said, top in zip(
                rows["Metadata_Compound"], rows["predicted"], rows["top_probability"], strict=True
            )
        ]
        if measure == "compound":
            told = sorted(told, key=lambda item: hashlib.sha256(item.subject.encode()).digest())[:MOST_COMPOUNDS]
        yield from told


def _named(table: pd.DataFrame) -> Any:
    return np.asarray(classes_of(table))[probabilities_of(table).argmax(axis=1)]


def gate_numbers(gate: GateReport) -> Iterator[Number]:
    """What the gate saw of each way of predicting, with intervals, and what it chose."""
    yield Number(measure="gate_chosen", subject=gate.chosen or "", text=gate.outcome)
    yield Number(measure="gate_unhealthy", value=sum(not score.healthy for score in gate.candidates))
    for score in gate.candidates:
        yield Number(measure="gate_healthy", subject=score.name, value=float(score.healthy))
        for name, measure in score.measures.items():
            yield _measured(f"gate/{name}", score.name, measure)
        if score.gain is not None:
            yield _measured("gate_gain", score.name, score.gain)
        if score.gain_over_incumbent is not None:
            yield _measured("gate_gain_over_incumbent", score.name, score.gain_over_incumbent)


def _measured(name: str, subject: str, measure: Measure) -> Number:
    return Number(measure=name, subject=subject, value=measure.value, low=measure.low, high=measure.high, n=measure.n)


def training_numbers(inputs: ReportInputs) -> Iterator[Number]:
    """What adaptation logged: losses, seconds, the share of treatments that could be paired."""
    for name, value in (inputs.candidates.training if inputs.candidates else {}).items():
        yield Number(measure=f"adaptation/{name}", value=value)


def by_name(numbers: Sequence[Number]) -> Mapping[str, float]:
    """Return measure -> value of what is of the whole batch and of no subject."""
    return {
        number.measure: number.value
        for number in numbers
        if not number.plate and not number.subject and number.value is not None
    }
