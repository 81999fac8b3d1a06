"""Earlier accepted batches of the same source -> a dataset folder to pair and compare with."""

from kfp import dsl

from components.image import component


@component
def archive(
    *,
    run_id: str,
    params: str,
    dataset: dsl.Input[dsl.Dataset],
    earlier: dsl.Output[dsl.Dataset],
) -> None:
    """Fetch the archive; the folder is there and empty when the source has none."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.archive import archive as step
    from coda.steps.context import running

    settings = read_settings()
    with running("archive", run_id, settings):
        out = Path(earlier.path)
        out.mkdir(parents=True, exist_ok=True)
        step(Path(dataset.path), out, params=Params.model_validate_json(params), settings=settings)
