"""Ingested plates behind manifests -> one dataset folder of tables that names the plate stores."""

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
    ingested: Optional[list[int]] = None,  # noqa: UP045
) -> None:
    """Put the plates of each batch together, reading those that no group has; with a digest, refuse any other one."""
    from pathlib import Path

    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.ingest import ingest as step
    from coda.storage.plate_shelf import StoredShelf
    from coda.trigger.batch_versions import require_version

    settings = read_settings()
    with running("ingest", run_id, settings):
        out, shelf = Path(dataset.path), StoredShelf(settings, run_id)
        uris = list(manifest_uris or [manifest_uri])
        step(uris, out, params=Params.model_validate_json(params), settings=settings, shelf=shelf)
        require_version(out, manifest_digest)
