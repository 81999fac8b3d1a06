"""An accepted dataset -> the data registry."""

from kfp import dsl

from components.image import component


@component
def version(
    *,
    run_id: str,
    params: str,
    dataset: dsl.Input[dsl.Dataset],
    revisions: dsl.Output[dsl.Artifact],
) -> None:
    """Version every batch and write the revisions that name them."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.version import version as step

    settings = read_settings()
    with running("version", run_id, settings):
        step(
            Path(dataset.path),
            Path(revisions.path),
            params=Params.model_validate_json(params),
            settings=settings,
            run_id=run_id,
        )
