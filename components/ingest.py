"""Raw plates behind manifests -> one dataset folder."""

from typing import Optional

from kfp import dsl

from components.image import component


@component
def ingest(
    *,
    run_id: str,
    params: str,
    dataset: dsl.Output[dsl.Dataset],
    manifest_uris: Optional[list[str]] = None,  # noqa: UP045  KFP reads this spelling
    manifest_uri: str = "",
    manifest_digest: str = "",
) -> None:
    """Read every manifest's plates; with a digest, refuse a manifest that is not the version it names."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.ingest import ingest as step
    from coda.trigger.batches import require_version

    settings = read_settings()
    with running("ingest", run_id, settings):
        out = Path(dataset.path)
        step(list(manifest_uris or [manifest_uri]), out, params=Params.model_validate_json(params), settings=settings)
        require_version(out, manifest_digest)
