"""Batches that a person hands to the adaptation pipeline together: in which order they run, and which ran before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from coda.contracts.manifest import MAX_MANIFEST_BYTES, SMALLER, BatchManifest
from coda.errors import CodaError, ContractError, Problem, TransientError
from coda.monitoring.summaries import report_prefix
from coda.plates.batch_files import LargerFileError
from coda.settings import Settings
from coda.steps.ingest import files_of
from coda.steps.record import read_run
from coda.storage.objects import store_for
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger
from coda.trigger.states import TAKEN


@dataclass(frozen=True)
class Planned:
    """One batch of a plan.

    Attributes:
        uri: Address of its manifest.
        version: Which version of which batch it is.
        run_id: Name of its run.
        created_at: When its producer finished it, by the manifest.
        skip: Why it is not run, in words; empty when it is.
    """

    uri: str
    version: BatchVersion
    run_id: str
    created_at: datetime
    skip: str = ""

    @property
    def batch_id(self) -> str:
        """``source/batch``."""
        return f"{self.version.source}/{self.version.batch}"


@dataclass(frozen=True)
class Plan:
    """Batches in the order in which they run, and manifests that cannot be used: address -> the error."""

    batches: tuple[Planned, ...]
    unusable: dict[str, CodaError]


def plan_of(uris: Sequence[str], settings: Settings, *, prefix: str = "") -> Plan:
    """Read manifests and say what becomes of each.

    A source's batches run from the oldest to the newest by their manifests, then by name: each finds the ones before it
    in the archive. A batch version has one run, of the name that the trigger gives it, so that what ran before, or goes
    on elsewhere, is seen.

    Args:
        uris: Addresses of manifests.
        settings: Where landing bucket and platform are.
        prefix: Begins the names of the runs in place of the trigger's: they are runs of their own.

    Raises:
        TransientError: A storage is away.
        ConfigError: A bucket is not there, or may not be read.
    """
    unusable: dict[str, CodaError] = {}
    found: dict[str, Planned] = {}
    for uri in uris:
        try:
            manifest = _manifest(uri, settings)
        except ContractError as error:
            unusable[uri] = error
            continue
        version = BatchVersion(manifest.source, manifest.batch, manifest.digest(), uri)
        name = f"{prefix}-{manifest.source}-{manifest.batch}" if prefix else version.run_id
        one = Planned(uri, version, name, manifest.created_at)
        before = found.setdefault(one.batch_id, one)
        if before.version.digest != version.digest:
            remedy = "Give the one that is right."
            problem = Problem(uri, f"another manifest of {one.batch_id} than {before.uri}", "one a batch", remedy)
            unusable[uri] = ContractError("Two manifests describe one batch.", [problem])
            unusable.setdefault(before.uri, ContractError("Two manifests describe one batch.", [problem]))
    usable = [one for one in found.values() if one.uri not in unusable]
    ordered = sorted(usable, key=lambda item: (item.version.source, item.created_at, item.version.batch))
    planned: list[Planned] = []
    for item in ordered:
        try:
            planned.append(replace(item, skip=_skip(item, settings, own=bool(prefix))))
        except TransientError:
            raise
        except CodaError as error:  # a record of an earlier run that nobody can read
            unusable[item.uri] = error
    return Plan(tuple(planned), unusable)


def _manifest(uri: str, settings: Settings) -> BatchManifest:
    files, name = files_of(uri, settings)
    try:
        return BatchManifest.parse(files.read(name, at_most=MAX_MANIFEST_BYTES), uri)
    except FileNotFoundError as error:
        problem = Problem(uri, "nothing", "a manifest.json", "Check the address.")
        raise ContractError(f"There is no {uri}.", [problem]) from error
    except LargerFileError as error:
        problem = Problem(uri, f"{error.size_bytes} bytes", f"at most {MAX_MANIFEST_BYTES}", SMALLER)
        raise ContractError(f"{uri} is too large.", [problem]) from error


def _skip(item: Planned, settings: Settings, *, own: bool) -> str:
    record = read_run(item.run_id, settings)
    if record is not None:
        return f"{record.outcome.replace('_', ' ')} before: {record.sentence}"
    if own:
        return ""
    platform = store_for(settings.platform, settings)
    state = Ledger(platform, "by hand").last(item.version)
    if state is not None and state.state in TAKEN:
        return f"the trigger looks after it, the ledger says {state.state} (`coda ledger show {item.batch_id}`)"
    version = item.version
    if platform.exists(f"{report_prefix(version.source, version.batch, version.digest)}summary.json"):
        return "this version was reported by a run of another name; --run-id NAME runs it again"
    return ""
