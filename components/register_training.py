"""Extractor, heads and evaluation -> registered versions and a release draft."""

from kfp import dsl

from components.image import component


@component
def register_training(
    *,
    run_id: str,
    params: str,
    pretrained: dsl.Input[dsl.Model],
    heads: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    revisions: dsl.Input[dsl.Artifact],
    draft: dsl.Output[dsl.Artifact],
) -> None:
    """Register extractor and heads as separate models."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.register_training import register_training as step

    settings = read_settings()
    with running("register_training", run_id, settings):
        step(
            Path(pretrained.path),
            Path(heads.path),
            Path(evaluation.path),
            Path(revisions.path),
            Path(draft.path),
            params=Params.model_validate_json(params),
            settings=settings,
            run_id=run_id,
        )
