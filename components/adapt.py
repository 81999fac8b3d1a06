"""A new batch -> candidates that could serve it."""

from kfp import dsl

from components.image import component


@component
def adapt(
    *,
    run_id: str,
    params: str,
    dataset: dsl.Input[dsl.Dataset],
    earlier: dsl.Input[dsl.Dataset],
    candidates: dsl.Output[dsl.Artifact],
    models: dsl.Output[dsl.Model],
    features: dsl.Output[dsl.Artifact],
) -> None:
    """Adapt the released extractor without labels; the head stays frozen."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.adapt import adapt as step
    from coda.steps.context import running

    settings = read_settings()
    with running("adapt", run_id, settings) as run:
        out = Path(models.path)
        out.mkdir(parents=True, exist_ok=True)
        tried = step(
            Path(dataset.path),
            Path(earlier.path),
            Path(candidates.path),
            params=Params.model_validate_json(params),
            settings=settings,
            run_id=run_id,
            models=out,
            features=Path(features.path),
        )
        for candidate in tried:
            predictions = Path(candidates.path) / candidate.name / "predictions.parquet"
            run.keep(predictions, f"candidates/{candidate.name}.parquet")
