"""Held-out batches -> accuracy of every head."""

from kfp import dsl

from components.image import component


@component
def evaluate(
    *,
    run_id: str,
    params: str,
    labels: str,
    dataset: dsl.Input[dsl.Dataset],
    pretrained: dsl.Input[dsl.Model],
    heads: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Measure each head on the held-out batches."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.evaluate import evaluate as step

    settings = read_settings()
    with running("evaluate", run_id, settings) as run:
        out = Path(evaluation.path)
        values = step(
            Path(dataset.path),
            Path(pretrained.path),
            Path(heads.path),
            labels,
            out,
            params=Params.model_validate_json(params),
            settings=settings,
        )
        for name, value in values.items():
            metrics.log_metric(name, value)
        run.keep(out / "metrics.json", "evaluation.json")
