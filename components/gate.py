"""Candidates -> a decision from numbers alone."""

from kfp import dsl

from components.image import component


@component
def gate(
    *,
    run_id: str,
    params: str,
    dataset: dsl.Input[dsl.Dataset],
    candidates: dsl.Input[dsl.Artifact],
    features: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
) -> None:
    """Judge the candidates; keeping the incumbent is a result, not an error."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.judge import judge as step

    settings = read_settings()
    with running("gate", run_id, settings) as run:
        out = Path(decision.path)
        step(
            Path(dataset.path),
            Path(candidates.path),
            out,
            params=Params.model_validate_json(params),
            settings=settings,
            features=Path(features.path),
        )
        run.keep(out if out.is_file() else out / "gate.json", "gate.json")
