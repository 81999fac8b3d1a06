"""The archive: earlier accepted batches of the same source, to pair with and to compare against."""

from pathlib import Path

from coda.config.params import Params
from coda.contracts import DataRevision
from coda.plates.dataset import open_batches
from coda.quality.fingerprints import FINGERPRINTS
from coda.registry import DEFAULT_SCOPE, ReleaseLog
from coda.settings import Settings
from coda.storage.data_registry import fetch_tables, list_batches


def archive(dataset: Path, out: Path, *, params: Params, settings: Settings) -> list[DataRevision]:
    """Fetch the tables of the newest batches that came before this dataset's own; their pixels stay where they are.

    Only accepted batches are ever versioned, so all that the registry holds may be used. Beside them lies what
    the stains that the default release was trained on look like, for validation to compare with, where it says so.

    Args:
        dataset: Dataset folder of the run.
        out: Dataset folder to write; it stays empty when the source is new.
        params: ``adaptation.archive_batches`` says how many batches a source at most.
        settings: Where the data registry is.

    Returns:
        The revisions fetched, by source, in the order in which the batches came.

    Raises:
        IntegrityError: The registry's bytes are not the recorded ones, or the release log cannot be read.
        TransientError: Git or the object store does not answer.
    """
    out.mkdir(parents=True, exist_ok=True)
    own: dict[str, set[str]] = {}
    for item in open_batches(dataset):
        own.setdefault(item.manifest.source, set()).add(item.manifest.batch)
    chosen: list[DataRevision] = []
    for source, names in sorted(own.items()):
        known = list_batches(source, settings=settings)
        # a run that is repeated must see what it saw the first time: nothing that came after its own batches
        first = next((place for place, item in enumerate(known) if item.batch in names), len(known))
        earlier = known[:first]
        chosen += earlier[max(0, len(earlier) - params.adaptation.archive_batches) :]
    fetch_tables(chosen, out, settings=settings)
    release = ReleaseLog(settings).current(DEFAULT_SCOPE)
    if release is not None and release.stains is not None:
        release.stains.write(out / FINGERPRINTS)
    return chosen
