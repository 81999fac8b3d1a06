"""Everything a run made -> the page people read, the metrics, and the record of the run."""

from kfp import dsl

from components.image import component


@component
def report(
    *,
    run_id: str,
    params: str,
    pipeline: str,
    dataset: dsl.Input[dsl.Dataset],
    page: dsl.Output[dsl.HTML],
    candidates: dsl.Input[dsl.Artifact] = None,
    features: dsl.Input[dsl.Artifact] = None,
    decision: dsl.Input[dsl.Artifact] = None,
    revisions: dsl.Input[dsl.Artifact] = None,
    record: dsl.Input[dsl.Artifact] = None,
    predictions: dsl.Input[dsl.Dataset] = None,
    evaluation: dsl.Input[dsl.Artifact] = None,
) -> None:
    """Write the report of a run that came to an end: released, kept the incumbent, or refused the batch."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.finish import finish
    from coda.steps.report import report as step
    from coda.steps.tracked_run import keep_report

    def where(artifact: dsl.Artifact | None) -> Path | None:
        return Path(artifact.path) if artifact is not None else None

    values, settings = Params.model_validate_json(params), read_settings()
    with running("report", run_id, settings):
        step(
            Path(dataset.path), Path(page.path), params=values, settings=settings, run_id=run_id,
            candidates=where(candidates), features=where(features), gate=where(decision), release=where(record),
            predictions=where(predictions), evaluation=where(evaluation),
        )  # fmt: skip
    with running("finish", run_id, settings):
        ended = finish(
            Path(dataset.path), pipeline="training" if pipeline == "training" else "adaptation",
            params=values, settings=settings, run_id=run_id,
            revisions=where(revisions), gate=where(decision), release=where(record),
        )  # fmt: skip
        if record is not None:  # else it was refused before anything was trained, and MLflow has no run of it
            keep_report(run_id, Path(page.path), ended.steps, settings)
