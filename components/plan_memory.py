"""Manifests -> the memory of the step that learns from them."""

from typing import Optional

from components.image import component


@component
def plan_memory(
    *,
    run_id: str,
    params: str,
    manifest_uris: Optional[list[str]] = None,  # noqa: UP045  KFP reads this spelling
    manifest_uri: str = "",
) -> str:
    """Return a Kubernetes quantity: what a cluster is asked for, and nothing on one machine."""
    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.sizing import plan_memory as step

    settings = read_settings()
    with running("plan_memory", run_id, settings):
        # one manifest: an adaptation, which reads the archive of its source, too
        uris, alone = list(manifest_uris or [manifest_uri]), not manifest_uris
        return step(uris, params=Params.model_validate_json(params), settings=settings, with_archive=alone)
