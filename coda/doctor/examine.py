"""One examination: every check over one reading of the records, and the repairs that are safe."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from coda.doctor.conflicting_ends import endings, releases_without_end
from coda.doctor.evidence import ABANDONED, Records, read_records
from coda.doctor.findings import Finding
from coda.doctor.leftovers import folders, messages, results, uploads
from coda.doctor.models import aliases, data, models
from coda.errors import CodaError, IntegrityError
from coda.settings import Settings
from coda.storage.objects import store_for
from coda.storage.probe import require_conditional_writes
from coda.trigger.service import Pace


@dataclass(frozen=True)
class Examination:
    """What one examination found.

    Attributes:
        batches: Batch versions in the ledger.
        releases: Releases in the log, over all scopes.
        versions: Model versions in MLflow.
        findings: What does not agree.
    """

    batches: int
    releases: int
    versions: int
    findings: tuple[Finding, ...]

    def raise_if_any(self) -> None:
        """Raise what the command line ends with when something was found.

        Raises:
            IntegrityError: Bytes are not the recorded ones.
            CodaError: Something else does not agree.
        """
        if not self.findings:
            return
        kind = IntegrityError if any(item.bytes_differ for item in self.findings) else CodaError
        raise kind(f"{len(self.findings)} thing(s) do not agree.", [item.problem for item in self.findings])


def examine(
    settings: Settings,
    *,
    work: Path | None = None,
    lease_s: float = Pace.lease_s,
    abandoned_s: float = ABANDONED.total_seconds(),
) -> Examination:
    """Compare ledger, runs, release log, MLflow, data registry and results; nothing of them is changed.

    First the store is asked whether it creates an object once: nothing could agree for long where it does not.

    A run that is under way is no finding: what its batch version has open in the ledger, or what wrote lately, may
    still come to its end.

    Args:
        settings: Where the services are.
        work: Folder of the runs of this machine; looked through for what killed processes left.
        lease_s: Seconds without a sign of life after which a claimed batch version is nobody's: the trigger's own.
        abandoned_s: The same for runs outside the ledger, uploads in parts and temporary folders.

    Raises:
        ConfigError: The object store ignores If-None-Match.
        IntegrityError: The release log is not whole, or MLflow holds a version without a digest.
        TransientError: A service is away.
    """
    require_conditional_writes(store_for(settings.platform, settings))
    records = read_records(settings, lease=timedelta(seconds=lease_s), abandoned=timedelta(seconds=abandoned_s))
    return Examination(
        batches=len(records.entries),
        releases=len(records.released()),
        versions=len(records.versions),
        findings=tuple(_findings(records, work)),
    )


def repair(examination: Examination) -> list[str]:
    """Do what is safe about the findings; return a description of what was done.

    Raises:
        TransientError: A service went away; what was done stays done.
    """
    repairs = [item.repair for item in examination.findings if item.repair is not None]
    return [item.says for item in repairs if item.act()]


def _findings(records: Records, work: Path | None) -> Iterator[Finding]:
    yield from (Finding("record", problem) for problem in records.unreadable)
    yield from messages(records)
    yield from endings(records)
    yield from releases_without_end(records)
    yield from models(records)
    yield from aliases(records)
    yield from data(records)
    yield from results(records)
    yield from uploads(records)
    yield from folders(records, work)
