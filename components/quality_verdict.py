"""The one value a pipeline branches on."""

from kfp import dsl

from components.image import component


@component
def quality_verdict(
    *,
    run_id: str,
    dataset: dsl.Input[dsl.Dataset],
) -> str:
    """Return 'accepted' or 'refused'. One return value: only such a decision works in every runner."""
    from pathlib import Path

    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.validate import verdict as step

    settings = read_settings()
    with running("quality_verdict", run_id, settings):
        return step(Path(dataset.path))
