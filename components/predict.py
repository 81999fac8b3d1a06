"""A batch, its release and the gate's decision -> field, well and compound tables."""

from kfp import dsl

from components.image import component


@component
def predict(
    *,
    run_id: str,
    params: str,
    dataset: dsl.Input[dsl.Dataset],
    record: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    candidates: dsl.Input[dsl.Artifact],
    predictions: dsl.Output[dsl.Dataset],
) -> None:
    """Predict with the registered models of the release record, verified at load, where the gate found them fit."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.predict import predict as step

    settings = read_settings()
    with running("predict", run_id, settings):
        step(
            Path(dataset.path),
            Path(record.path),
            Path(predictions.path),
            params=Params.model_validate_json(params),
            settings=settings,
            gate=Path(decision.path),
            candidates=Path(candidates.path),
            run_id=run_id,
        )
