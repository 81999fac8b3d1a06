"""What tests of the steps after adaptation share: a decision as the gate writes it, and register and release in one."""

from coda.contracts.gate import GateReport
from coda.contracts.release import DataRevision
from coda.steps.register_adaptation import register_adaptation
from coda.steps.release import release
from coda.steps.version import write_revisions

PROBABILITIES = ["p_actin", "p_proteasome", "p_tubulin"]


def decided(outcome, chosen):
    return GateReport(
        source="lab_b", batch="b1", manifest_digest="0" * 64, policy_version="v", baseline="unadapted", candidates=(),
        outcome=outcome, chosen=chosen, sentence=f"{chosen} serves.",
    )  # fmt: skip


def bind(candidates, report, work, params, settings, run_id):
    """The register and the release step."""
    revision = DataRevision(source="lab_b", batch="b1", path="lab_b/b1", revision="0" * 40, digest="0.dir")
    report.write(work / f"{run_id}-gate.json")
    register_adaptation(
        candidates, work / f"{run_id}-gate.json", write_revisions(work / f"{run_id}-data.json", [revision]),
        work / f"{run_id}-draft.json", params=params, settings=settings, run_id=run_id,
    )  # fmt: skip
    return release(work / f"{run_id}-draft.json", work / f"{run_id}.json", settings=settings, run_id=run_id)
