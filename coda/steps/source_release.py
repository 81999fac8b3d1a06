"""Releases fetched from the registry and verified: what every adaptation starts from, and what serves the source."""

from pathlib import Path

from coda.adaptation.base import Base, FrozenHead, Incumbent
from coda.contracts.recipe import HeadAlignment
from coda.contracts.release import ModelRef, ReleaseRecord
from coda.errors import ConfigError, Problem
from coda.networks.classical_head import front_of
from coda.networks.extractor import load_extractor
from coda.networks.head import load_class_shares, load_head, load_labelled_compounds, load_source_statistics
from coda.registry import DEFAULT_SCOPE, ReleaseLog, fetch, fetch_state
from coda.settings import Settings
from coda.training.methods.registry import load_state


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

    Raises:
        IntegrityError: A byte is not the recorded one.
        ConfigError: A version does not exist, or the extractor has no adaptation state.
        TransientError: The registry does not answer.
    """
    extractor = fetch(record.extractor, work / "extractor", settings=settings)
    state = fetch_state(record.extractor, work / "state", settings=settings)
    heads: dict[HeadAlignment, FrozenHead] = {}
    for number, ref in enumerate(dict.fromkeys((record.head, *record.heads))):
        frozen = fetch_head(ref, work / f"head_{number}", settings)
        heads.setdefault(frozen.alignment, frozen)
    return Base(
        extractor=load_extractor(extractor, record.extractor.digest),
        extractor_digest=record.extractor.digest,
        state=load_state(state),
        heads=heads,
    )


def own_release(source: str, settings: Settings, *, run_id: str) -> ReleaseRecord | None:
    """Return the release that serves exactly this source, or None where only the default serves it.

    Args:
        source: Source of the batch.
        settings: Where the release log is.
        run_id: The run that asks. A run that is repeated after it released must see what it saw the first time, so
            its own release does not count.
    """
    log = ReleaseLog(settings)
    newest = log.entry(source)
    if newest is None or newest.release.run_id != run_id:
        return newest.release if newest else None
    others = [entry.release for entry in log.readable(source) if entry.release.run_id != run_id]
    return others[-1] if others else None


def fetch_incumbent(record: ReleaseRecord, base: Base, work: Path, settings: Settings) -> Incumbent:
    """Fetch extractor and head of a release, verifying every byte; what the base has already is not fetched again.

    Raises:
        IntegrityError: A byte is not the recorded one.
        ConfigError: A version does not exist.
        TransientError: The registry does not answer.
    """
    extractor = base.extractor
    if record.extractor.digest != base.extractor_digest:
        folder = fetch(record.extractor, work / "incumbent_extractor", settings=settings)
        extractor = load_extractor(folder, record.extractor.digest)
    known = {frozen.digest: frozen for frozen in base.heads.values()}
    head = known.get(record.head.digest) or fetch_head(record.head, work / "incumbent_head", settings)
    return Incumbent(front_of(extractor, head.head), record.extractor.digest, head, record.alignment)


def fetch_head(ref: ModelRef, folder: Path, settings: Settings) -> FrozenHead:
    """Fetch one head with the statistics of its training tokens and its classes' shares, verifying every byte."""
    fetch(ref, folder, settings=settings)
    statistics, head = load_source_statistics(folder, ref.digest), load_head(folder, ref.digest)
    shares = load_class_shares(folder, head.classes, ref.digest)
    return FrozenHead(head, statistics, ref.digest, shares, load_labelled_compounds(folder, ref.digest))
