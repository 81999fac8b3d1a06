"""Who may let a held release serve: the approvers that the gate's policy named for its source."""

import json

from coda.contracts import GateReport, ReleaseRecord
from coda.contracts.base import digest_of_json
from coda.errors import ConfigError, IntegrityError, Problem
from coda.registry.drafts import GATE, WAITING, read_kept
from coda.settings import Settings


def require_approver(record: ReleaseRecord, who: str, *, settings: Settings) -> None:
    """Check that a person may decide on a release that the gate held; any other release passes.

    The decision is the GateReport that the run kept, and must be the one that the release was drafted from. Where its
    policy named nobody, whoever may promote decides. `who` is what the caller says: this keeps people from deciding by
    mistake, and whoever may write to the release log from nothing.

    Raises:
        ConfigError: The policy names others.
        IntegrityError: The decision is missing, or is not the one that the release was drafted from.
    """
    if record.approver != WAITING:
        return
    kept = read_kept(record.run_id, GATE, settings=settings)
    digest = digest_of_json(kept)
    where = f"runs/{record.run_id}/{GATE}"
    if not kept or digest != record.gate_digest:
        found = f"a report of digest {digest}" if kept else "nothing"
        remedy = "Run the batch again (`coda ledger retry`), and find out who changed it."
        problem = Problem(where, found, f"the gate report of digest {record.gate_digest}", remedy)
        raise IntegrityError("The decision that held this release is not the recorded one.", [problem])
    report = GateReport.parse(json.dumps(kept), where)
    if report.approvers and who not in report.approvers:
        expected = f"one of {', '.join(report.approvers)}"
        remedy = f"Policy {report.policy_version} names them for {report.source}; one of them decides, with --by."
        problem = Problem(f"release {record.release_id}", f"{who!r} as the approver", expected, remedy)
        raise ConfigError("This release waits for another person.", [problem])
