"""The gate's choice -> a registered extractor and a release draft."""

from kfp import dsl

from components.image import component


@component
def register_adaptation(
    *,
    run_id: str,
    params: str,
    candidates: dsl.Input[dsl.Artifact],
    models: dsl.Input[dsl.Model],
    decision: dsl.Input[dsl.Artifact],
    revisions: dsl.Input[dsl.Artifact],
    draft: dsl.Output[dsl.Artifact],
) -> None:
    """Register the chosen candidate; the draft names the incumbent when that one stays."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.register_adaptation import register_adaptation as step

    settings = read_settings()
    with running("register_adaptation", run_id, settings):
        step(
            Path(candidates.path),
            Path(decision.path),
            Path(revisions.path),
            Path(draft.path),
            params=Params.model_validate_json(params),
            settings=settings,
            run_id=run_id,
            models=Path(models.path),
        )
