"""The source release, fetched from the registry and verified: what every adaptation starts from."""

from pathlib import Path
from typing import Literal

from coda.adaptation.run import Base, FrozenHead
from coda.contracts.release import ModelRef, ReleaseRecord
from coda.errors import ConfigError, Problem
from coda.networks.extractor import load_extractor
from coda.networks.head import load_head, load_source_statistics
from coda.networks.state import load_state
from coda.registry import DEFAULT_SCOPE, ReleaseLog, fetch, fetch_state
from coda.settings import Settings


def default_release(settings: Settings) -> ReleaseRecord:
    """Return the release that the 'default' pointer names.

    Raises:
        ConfigError: There is none yet.
    """
    record = ReleaseLog(settings).current(DEFAULT_SCOPE)
    if record is None:
        remedy = "Run the training pipeline on a source with labels first: `coda pipeline run training`."
        problem = Problem(f"release log of {DEFAULT_SCOPE!r}", "no release", "a source release", remedy)
        raise ConfigError("There is no released model to adapt.", [problem])
    return record


def fetch_base(record: ReleaseRecord, work: Path, settings: Settings) -> Base:
    """Fetch extractor, adaptation state and every head of a release, verifying every byte.

    Args:
        record: The source release.
        work: Folder to fetch into.
        settings: Where the registry is.

    Raises:
        IntegrityError: A byte is not the recorded one.
        ConfigError: A version does not exist, or the extractor has no adaptation state.
        TransientError: The registry does not answer.
    """
    extractor = fetch(record.extractor, work / "extractor", settings=settings)
    state = fetch_state(record.extractor, work / "state", settings=settings)
    heads: dict[Literal["none", "standardise"], FrozenHead] = {}
    for number, ref in enumerate(dict.fromkeys((record.head, *record.heads))):
        frozen = fetch_head(ref, work / f"head_{number}", settings)
        heads.setdefault("standardise" if frozen.head.alignment == "standardise" else "none", frozen)
    return Base(
        extractor=load_extractor(extractor, record.extractor.digest),
        extractor_digest=record.extractor.digest,
        state=load_state(state),
        heads=heads,
    )


def fetch_head(ref: ModelRef, folder: Path, settings: Settings) -> FrozenHead:
    """Fetch one head with the statistics of its training tokens, verifying every byte."""
    fetch(ref, folder, settings=settings)
    statistics = load_source_statistics(folder, ref.digest)
    return FrozenHead(load_head(folder, ref.digest), statistics, ref.digest)
