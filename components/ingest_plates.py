"""One group of raw plates -> plate stores in the data store, and what is kept of each plate."""

from typing import Optional

from components.image import component


@component
def ingest_plates(
    *,
    run_id: str,
    params: str,
    group: str,
    manifest_uris: Optional[list[str]] = None,  # noqa: UP045  KFP reads this spelling
    manifest_uri: str = "",
) -> int:
    """Ingest the plates of a group; those that were finished before, in whatever run, are not done again."""
    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.context import running
    from coda.steps.plates import ingest_group as step
    from coda.storage.plate_shelf import StoredShelf

    settings = read_settings()
    with running("ingest_plates", run_id, settings, part=group.partition("/")[0]):
        uris, shelf = list(manifest_uris or [manifest_uri]), StoredShelf(settings, run_id)
        return step(uris, group, params=Params.model_validate_json(params), settings=settings, shelf=shelf)
