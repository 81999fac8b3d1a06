"""A release draft -> the pointer of its source."""

from kfp import dsl

from components.image import component


@component
def release(
    *,
    run_id: str,
    draft: dsl.Input[dsl.Artifact],
    record: dsl.Output[dsl.Artifact],
) -> None:
    """Move the pointer, once: the same draft released again changes nothing."""
    from pathlib import Path

    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.release import release as step

    settings = read_settings()
    with running("release", run_id, settings):
        step(Path(draft.path), Path(record.path), settings=settings, run_id=run_id)
