"""DINO with cross-batch pairs -> extractor and its state."""

from kfp import dsl

from components.image import component


@component
def pretrain(
    *,
    run_id: str,
    params: str,
    labels: str,
    dataset: dsl.Input[dsl.Dataset],
    pretrained: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Pretrain the extractor on every batch that is not held out."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.pretrain import pretrain as step

    settings = read_settings()
    with running("pretrain", run_id, settings):
        values = step(
            Path(dataset.path),
            Path(pretrained.path),
            params=Params.model_validate_json(params),
            settings=settings,
            run_id=run_id,
            labels=labels or None,
        )
        for name, value in values.items():
            metrics.log_metric(name, value)
