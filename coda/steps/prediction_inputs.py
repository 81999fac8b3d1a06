"""What `coda predict` is asked for, found: the batch, the release that predicts it, and the gate's decision on it."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coda.contracts import GateReport, ReleaseRecord
from coda.errors import ConfigError, Problem
from coda.monitoring.summaries import gate_key
from coda.plates.dataset import open_batches
from coda.registry import ReleaseLog
from coda.registry.drafts import find_release
from coda.settings import Settings
from coda.storage.data_registry import fetch_tables, find_batch
from coda.storage.objects import store_for

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})/([A-Za-z0-9][A-Za-z0-9._-]{0,99})")


@contextmanager
def dataset_of(batch: str, *, revision: str | None, settings: Settings) -> Iterator[tuple[Path, bool]]:
    """Give the dataset folder that a person means, for as long as it is needed.

    Args:
        batch: A dataset folder, or ``source/batch`` as the data registry names it; a folder that exists comes first.
        revision: Commit of the data registry; the newest when none. Only for ``source/batch``.
        settings: Where the data registry is.

    Yields:
        The folder, and whether it was fetched from the registry.

    Raises:
        ConfigError: It is neither, or the registry does not hold the batch.
        IntegrityError: The registry's bytes are not the recorded ones.
        TransientError: Git or the object store does not answer.
    """
    folder, named = Path(batch), _NAMED.fullmatch(batch)
    if folder.is_dir():
        if revision is not None:
            problem = Problem("--revision", revision, "a batch of the data registry", "Give source/batch, or leave it.")
            raise ConfigError(f"{batch} is a folder of this machine and has no revisions.", [problem])
        yield folder, False
        return
    if named is None:
        remedy = "Give a folder that exists, or source/batch."
        problem = Problem("batch", repr(batch), "a dataset folder, or source/batch of the data registry", remedy)
        raise ConfigError("There is no such batch.", [problem])
    found = find_batch(named[1], named[2], settings=settings, revision=revision)
    with tempfile.TemporaryDirectory(prefix="coda-batch-") as work:
        fetch_tables([found], Path(work) / "dataset", settings=settings)
        yield Path(work) / "dataset", True


def release_for(dataset: Path, release: str | None, settings: Settings) -> ReleaseRecord:
    """Return the release to predict with.

    Args:
        dataset: Dataset folder with batches of one source.
        release: ReleaseRecord file, or the id of a release that serves or served; what serves now when none.
        settings: Where the release log is.

    Raises:
        ConfigError: There is none, it was never released, or the source is not clear.
        ContractError: The file is no ReleaseRecord.
    """
    if release is not None:
        return ReleaseRecord.read(Path(release)) if Path(release).is_file() else _released(release, settings)
    sources = sorted({batch.manifest.source for batch in open_batches(dataset)})
    if len(sources) != 1:
        found = ", ".join(sources) or "no batch"
        problem = Problem(str(dataset), found, "batches of one source", "Name one, or give --release.")
        raise ConfigError("The release to predict with is not clear.", [problem])
    record = ReleaseLog(settings).serving(sources[0])
    if record is None:
        remedy = "Run the training pipeline first, or give --release."
        problem = Problem(f"release log of {sources[0]!r}", "no release", "one that serves", remedy)
        raise ConfigError(f"Nothing serves {sources[0]} yet.", [problem])
    return record


def unfit_for(dataset: Path, release: ReleaseRecord, settings: Settings) -> GateReport | None:
    """Return the decision by which nothing fit serves a batch of this folder, as its report keeps it; else None.

    What a person promoted meanwhile serves in spite of the decision that held it.
    """
    store = store_for(settings.platform, settings)
    for batch in open_batches(dataset):
        key = gate_key(batch.manifest.source, batch.manifest.batch, batch.manifest.digest())
        text = store.find(key)
        decision = GateReport.parse(text, store.url(key)) if text is not None else None
        if decision is not None and not decision.fit_to_predict and release.gate_digest != decision.digest():
            return decision
    return None


def _released(release_id: str, settings: Settings) -> ReleaseRecord:
    served = ReleaseLog(settings).released(release_id)
    if served is not None:
        return served
    draft = find_release(release_id, settings=settings)
    found = "no such release" if draft is None else "a draft that waits for a person and was never released"
    remedy = "See `coda registry history`." if draft is None else f"Promote it: `coda registry promote {release_id}`."
    problem = Problem(f"release {release_id!r}", found, "a release of the log, or a file", remedy)
    raise ConfigError("The batch cannot be predicted with this release.", [problem])
