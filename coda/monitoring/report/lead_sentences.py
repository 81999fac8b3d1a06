"""The report's lead: may this batch be used, and what happened to it."""

from dataclasses import dataclass
from typing import Literal

from coda.contracts import GateReport
from coda.monitoring.inputs import ReportInputs
from coda.monitoring.report.decision import deciders, promotion_command

Tone = Literal["good", "caution", "bad"]


@dataclass(frozen=True)
class Headline:
    """What a reader takes away who reads nothing else.

    Attributes:
        tone: Whether to go on, to look closer, or to stop.
        label: Two or three words.
        sentence: The verdict in one sentence.
        next_step: What to do now.
    """

    tone: Tone
    label: str
    sentence: str
    next_step: str


def headline(inputs: ReportInputs, run_id: str) -> Headline:
    """Return the verdict on a run, from the quality reports, the gate and the release.

    Args:
        inputs: What the run left.
        run_id: The run, for the command that lets a held release serve.
    """
    names = _listed([batch.manifest.batch_id for batch in inputs.batches])
    refused = [batch for batch in inputs.batches if batch.refused]
    if len(refused) == len(inputs.batches):
        reasons = sum(not check.passed and check.severity == "critical" for b in refused for check in b.quality_checks)
        return Headline(
            "bad",
            "Not usable",
            f"{names} was refused by quality control, so nothing was predicted and no model was changed."
            if len(refused) == 1
            else f"All {len(refused)} batches were refused by quality control; nothing was learned from them.",
            f"Read the critical {'reason' if reasons == 1 else 'reasons'} below, and deliver the batch again."
            if reasons
            else "Read the reasons below, and deliver the batch again.",
        )
    if inputs.gate is not None:
        return _judged(inputs, inputs.gate, names, run_id)
    left_out = f" {len(refused)} further batch(es) were refused and left out." if refused else ""
    usable = _listed([batch.manifest.batch_id for batch in inputs.batches if not batch.refused])
    if inputs.release is not None:
        return Headline(
            "caution" if refused else "good",
            "Model released",
            f"The extractor and its head were trained on {usable} and serve as release {inputs.release.release_id}."
            + left_out,
            "Compare the figures of the held-out batches below with what you expect before relying on them.",
        )
    tone: Tone = "caution" if refused or _warned(inputs) else "good"
    return Headline(
        tone,
        "Accepted, with remarks" if tone == "caution" else "Accepted",
        f"{usable} passed quality control{' with remarks' if _warned(inputs) else ''}.{left_out}",
        "Read the remarks below." if tone == "caution" else "Nothing needs to be done.",
    )


def _judged(inputs: ReportInputs, gate: GateReport, names: str, run_id: str) -> Headline:
    if gate.outcome == "hold":
        earlier = "the model without adaptation" if gate.incumbent is None else "the earlier model"
        until = f"{earlier} predicts it" if gate.fit_to_predict else "it has no predictions"
        return Headline(
            "caution",
            "Waiting",
            f"{names} was judged, and a person must decide before a new model serves it; until then {until}.",
            f"{deciders(gate)} reads the decision below. To let {gate.chosen} serve, type "
            f"{promotion_command(run_id)}; to keep what serves now, do nothing.",
        )
    if gate.outcome == "refuse" or gate.chosen is None:
        return Headline(
            "bad",
            "No predictions",
            f"The images of {names} are fit for use, but no model is fit for them, so nothing was predicted.",
            "Show this page to the person who runs the pipeline; the decision is explained below.",
        )
    warned = _warned(inputs)
    remark = "with remarks" if warned else "without remarks"
    if gate.outcome == "release":
        done = f"{_released_words(gate)} was released, and its predictions are below"
    elif gate.incumbent is None:
        done = (
            "no fitted model was clearly better, so the model without adaptation serves it; its predictions are below"
        )
    else:
        done = "no fitted model was clearly better, so the earlier model keeps serving; its predictions are below"
    return Headline(
        "caution" if warned else "good",
        "Usable, with remarks" if warned else "Usable",
        f"{names} passed quality control {remark}; {done}.",
        "Read the warnings before using the predictions." if warned else "The predictions can be used.",
    )


def _released_words(gate: GateReport) -> str:
    if gate.chosen == gate.baseline:
        return "what served before does not fit this batch, so the model without adaptation"
    if (gate.chosen or "").startswith(("coda", "oda")):
        return "a model fitted to this batch"
    return "the earlier model, with its view aligned to this batch,"


def _warned(inputs: ReportInputs) -> bool:
    return any(
        batch.quality is not None and batch.quality.verdict == "accepted_with_warnings" for batch in inputs.batches
    )


def _listed(names: list[str]) -> str:
    if len(names) <= 3:
        return "Batch " + " and ".join(names) if len(names) == 1 else "Batches " + ", ".join(names)
    return f"{len(names)} batches ({names[0]} to {names[-1]})"
