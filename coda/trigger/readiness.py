"""Whether a landed batch version can be run now: its manifest is still the one that landed, and its files are there."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from coda.contracts import BatchManifest
from coda.settings import Settings
from coda.storage.objects import ObjectStore
from coda.trigger.awaited import Awaited, awaited_of
from coda.trigger.batch_versions import BatchVersion, in_words, missing_files, read_arrival
from coda.trigger.ledger import Ledger, LedgerState
from coda.trigger.pace import Pace


@dataclass(frozen=True)
class Ready:
    """What was found.

    Attributes:
        run: Whether the version can be run now.
        manifest: Its manifest, when it is still there.
        remarks: What is remarkable about that.
        gone: Whether the manifest was removed or replaced before anything was run, so that this version never can.
    """

    run: bool = False
    manifest: BatchManifest | None = None
    remarks: tuple[str, ...] = ()
    gone: bool = False


class Readiness:
    """Checks landed versions, and not again one that misses files before the time for that has come."""

    def __init__(self, landing: ObjectStore, ledger: Ledger, settings: Settings) -> None:
        """Check below the landing prefix, and in the other places that the settings allow."""
        self._landing = landing
        self._settings = settings
        self._ledger = ledger
        self._not_before: dict[str, float] = {}
        self._awaited: dict[str, Awaited] = {}

    def of(self, state: LedgerState, pace: Pace) -> Ready:
        """Check one version.

        Args:
            state: Its newest state.
            pace: How long it waits for missing files, and how often they are looked for.
        """
        version = state.version
        if time.monotonic() < self._not_before.get(state.run_id, float("-inf")):
            return Ready()
        waited = max(0.0, (datetime.now(UTC) - self._ledger.arrived(version)).total_seconds())
        if waited < pace.patience_s and self._waits(version):
            self._not_before[state.run_id] = time.monotonic() + pace.recheck_s
            return Ready()
        self._awaited.pop(state.run_id, None)
        self._not_before.pop(state.run_id, None)
        arrival = read_arrival(self._landing, version.key, self._settings)
        if arrival is None or arrival.manifest is None or arrival.version.digest != version.digest:
            return self._without_manifest(version)
        missing = missing_files(self._landing, version, arrival.manifest, self._settings)
        if missing and waited < pace.patience_s:
            self._not_before[state.run_id] = time.monotonic() + pace.recheck_s
            if (awaited := awaited_of(missing, arrival.manifest, arrival.etag)) is not None:
                self._awaited[state.run_id] = awaited
            return Ready()
        if not missing:
            return Ready(run=True, manifest=arrival.manifest)
        told = f"{missing.count} file(s) of the manifest did not come within {_duration(pace.patience_s)}"
        remarks = (f"{told}; what is there is judged as it is", *in_words(missing.problems))
        return Ready(run=True, manifest=arrival.manifest, remarks=remarks)

    def _waits(self, version: BatchVersion) -> bool:
        """Return whether a version is known to wait, by its missing files alone: all files are looked for only then."""
        awaited = self._awaited.get(version.run_id)
        if awaited is None:
            return False
        manifest = self._landing.info(version.key)
        if manifest is None or manifest.etag != awaited.etag:
            return False
        return not awaited.complete(self._landing, version, self._settings)

    def _without_manifest(self, version: BatchVersion) -> Ready:
        entry = self._ledger.entry(version.folder)
        if entry.unreadable or any(item.state == "claimed" for item in entry.states):
            # its run may have released, and only the run itself knows
            return Ready(run=True, remarks=("the manifest was removed or replaced while this version was run",))
        return Ready(gone=True)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds:.0f} s"
