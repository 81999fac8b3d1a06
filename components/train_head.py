"""Labels and tokens -> one frozen head for each alignment."""

from kfp import dsl

from components.image import component


@component
def train_head(
    *,
    run_id: str,
    params: str,
    labels: str,
    dataset: dsl.Input[dsl.Dataset],
    pretrained: dsl.Input[dsl.Model],
    heads: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the heads; the only step of the product, with evaluation, that reads a mechanism of action."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.train_head import train_head as step

    settings = read_settings()
    with running("train_head", run_id, settings):
        out = Path(heads.path)
        values = step(
            Path(dataset.path),
            Path(pretrained.path),
            labels,
            out,
            params=Params.model_validate_json(params),
            settings=settings,
            run_id=run_id,
        )
        for name, value in values.items():
            metrics.log_metric(name, value)
