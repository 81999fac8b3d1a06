"""Manifests -> groups of plates that are ingested apart."""

from typing import List, Optional  # noqa: UP035  KFP reads this spelling

from components.image import component


@component
def plan_plates(
    *,
    run_id: str,
    params: str,
    manifest_uris: Optional[list[str]] = None,  # noqa: UP045  KFP reads this spelling
    manifest_uri: str = "",
) -> List[str]:  # noqa: UP006
    """Divide the plates of all batches into groups of similar size."""
    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.plates import plan_groups as step

    settings = read_settings()
    with running("plan_plates", run_id, settings):
        uris = list(manifest_uris or [manifest_uri])
        return step(uris, params=Params.model_validate_json(params), settings=settings)
