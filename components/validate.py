"""Expectations over a dataset -> the same dataset with a quality report in every batch folder."""

from kfp import dsl

from components.image import component


@component
def validate(
    *,
    run_id: str,
    params: str,
    dataset: dsl.Input[dsl.Dataset],
    checked: dsl.Output[dsl.Dataset],
    history: dsl.Input[dsl.Dataset] = None,
    must_be_accepted: bool = False,
) -> None:
    """Judge a copy of the dataset: an input artifact is never changed. Training stops at a refused batch."""
    import shutil
    from pathlib import Path

    from coda.config import Params
    from coda.errors import ContractError, Problem, raise_if_any
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.validate import validate as step

    settings = read_settings()
    with running("validate", run_id, settings) as run:
        out = Path(checked.path)
        shutil.copytree(dataset.path, out, dirs_exist_ok=True)
        earlier = Path(history.path) if history is not None else None
        reports = step(out, params=Params.model_validate_json(params), settings=settings, history=earlier)
        for report in reports:
            name = "quality.json" if len(reports) == 1 else f"quality/{report.source}/{report.batch}.json"
            run.keep(out / report.source / report.batch / "quality.json", name)
        refused = [
            Problem(f"{report.source}/{report.batch}", report.sentence, "an accepted batch", "See its quality report.")
            for report in reports
            if must_be_accepted and report.refused
        ]
        raise_if_any(ContractError, f"{len(refused)} batch(es) cannot be trained on.", refused)
