"""From outcomes to a verdict: which plates are refused, what becomes of the batch, and the sentence that says so."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

import pandas as pd

from coda.contracts.quality import Check, PlateFigures, QualityReport, Verdict
from coda.quality.expectations import Outcome
from coda.quality.expected_tables import BatchData
from coda.quality.suite import Suite

SHOWN = 4
"""Failing rows of one plate that a check quotes; the rest is counted."""


CONTRACT, DELIVERED = "delivery_keeps_its_contract", "plates_are_delivered"
"""Two checks of the suite that find the same thing twice where a plate's tables cannot be used."""


@dataclass(frozen=True)
class Finding:
    """A check and what it is about.

    Attributes:
        check: The check.
        plate: Plate it is about; '' for the whole batch.
        brief: What was found in a few words, for the sentence of the report.
    """

    check: Check
    plate: str = ""
    brief: str = ""

    @property
    def stops(self) -> bool:
        """Whether the plate (or the batch) must not be used."""
        return self.check.severity == "critical" and not self.check.passed


def findings_of(outcomes: Sequence[Outcome], parameters: Mapping[str, float]) -> list[Finding]:
    """Turn outcomes into findings: one for a met expectation, one a plate for a broken one.

    An expectation that could not be evaluated counts as critical for the whole batch, whatever its severity: nobody
    knows what it would have found.
    """
    findings: list[Finding] = []
    for outcome in outcomes:
        if outcome.crash:
            findings.append(_crashed(outcome))
        elif outcome.passed:
            findings.append(_met(outcome, parameters))
        elif len(outcome.rows) == 0:
            row = pd.DataFrame([{"observed": outcome.observed or "not as expected"}])
            findings.append(_broken(outcome, "", row, parameters))
        else:
            column = next((name for name in ("plate", "Metadata_Plate") if name in outcome.rows), None)
            plates = outcome.rows[column].fillna("").astype(str) if column else pd.Series("", index=outcome.rows.index)
            of_plate = {plate: outcome.rows[plates == plate] for plate in dict.fromkeys(plates)}
            findings += [_broken(outcome, plate, rows, parameters) for plate, rows in of_plate.items()]
    return findings


def _crashed(outcome: Outcome) -> Finding:
    item = outcome.expectation
    check = Check(
        name=item.name, group=item.group, severity="critical", passed=False, where="the whole batch",
        observed=f"the check could not be carried out: {outcome.crash}",
        expected=_fill(item.expected, {}),
        reason="A check that cannot be carried out protects nobody, so the batch is not used.",
        remedy="Correct the expectation in the suite file, or inform the people who run the pipeline.",
    )  # fmt: skip
    return Finding(check)


def _met(outcome: Outcome, parameters: Mapping[str, float]) -> Finding:
    item = outcome.expectation
    check = Check(
        name=item.name, group=item.group, severity=item.severity, passed=True, where="the whole batch",
        observed="as expected", expected=_fill(item.expected, parameters), reason=item.reason, remedy="",
    )  # fmt: skip
    return Finding(check)


def _broken(outcome: Outcome, plate: str, rows: pd.DataFrame, parameters: Mapping[str, float]) -> Finding:
    item = outcome.expectation
    if "distance_mads" in rows:
        rows = rows.sort_values("distance_mads", ascending=False)
    records = [{**parameters, **{str(name): value for name, value in row.items()}} for row in rows.to_dict("records")]
    quoted = list(dict.fromkeys(_fill(item.found, record) for record in records))
    more = f"; and {len(quoted) - SHOWN} more" if len(quoted) > SHOWN else ""
    check = Check(
        name=item.name, group=item.group, severity=item.severity, passed=False,
        where=f"plate {plate}" if plate else "the whole batch",
        observed="; ".join(quoted[:SHOWN]) + more,
        expected=_joined(item.expected, records),
        reason=item.reason,
        remedy=_joined(item.remedy, records, end="."),
    )  # fmt: skip
    others = f" (and {len(quoted) - 1} more)" if len(quoted) > 1 else ""
    return Finding(check, plate, quoted[0].rstrip(".") + others)


def _joined(template: str, records: Sequence[Mapping[str, object]], end: str = "") -> str:
    told = [text.rstrip(end) for text in dict.fromkeys(_fill(template, record) for record in records)]
    return "; ".join(told[:SHOWN]) + end


def _fill(template: str, values: Mapping[str, object]) -> str:
    """Fill $names with values; shares and quorums are written in per cent, other numbers with three digits."""
    return Template(template).safe_substitute({name: _word(name, value) for name, value in values.items()})


def _word(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if any(part in name for part in ("share", "quorum", "saturation", "near_black", "snr_ratio")):
        return f"{100 * value:.3g} %"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def report_of(
    data: BatchData,
    suite: Suite,
    findings: Sequence[Finding],
    figures: Sequence[PlateFigures],
    quorum: float,
    *,
    earlier: QualityReport | None = None,
) -> QualityReport:
    """Return the report on a batch.

    Args:
        data: The batch.
        suite: Suite the findings come from.
        findings: What was found.
        figures: Figures of each plate, to be kept with the verdict.
        quorum: Share of the manifest's plates that must be accepted, in [0, 1].
        earlier: Report of an earlier validation; what it refused of the same ingest stays refused.
    """
    plates = [entry.plate for entry in data.manifest.plates]
    found = list(findings)
    before = earlier if earlier is not None and earlier.ingest_digest == data.ingest.digest() else None
    stopped = {finding.plate for finding in found if finding.stops}
    if before is not None and not before.refused:
        found += [_refused_before(plate) for plate in before.plates_refused if plate not in stopped]
        stopped |= set(before.plates_refused)
    accepted = [plate for plate in plates if plate not in stopped]
    if len(accepted) < max(1.0, quorum * len(plates)):
        found.append(_quorum(len(accepted), len(plates), quorum))
    if before is not None and before.refused and not any(finding.stops and not finding.plate for finding in found):
        found.append(_refused_before(""))
    if any(finding.stops and not finding.plate for finding in found):
        accepted = []
    verdict = _verdict(found, accepted)
    fields = data.usable
    return QualityReport(
        source=data.manifest.source,
        batch=data.manifest.batch,
        manifest_digest=data.ingest.manifest_digest,
        ingest_digest=data.ingest.digest(),
        suite_version=suite.title,
        verdict=verdict,
        sentence=sentence(data.manifest.batch_id, verdict, found, accepted, plates),
        fields_expected=data.ingest.fields_expected,
        fields_accepted=int(fields["Metadata_Plate"].isin(accepted).sum()),
        plates_accepted=tuple(accepted),
        plates_refused=tuple(plate for plate in plates if plate not in accepted),
        checks=tuple(finding.check for finding in found),
        plates=tuple(figures),
        red_flags=data.red_flags.digest if data.red_flags else None,
        quarantined=data.ingest.quarantined,
    )


def _verdict(findings: Sequence[Finding], accepted: Sequence[str]) -> Verdict:
    if not accepted:
        return "refused"
    return "accepted_with_warnings" if any(_concerns(item) for item in findings) else "accepted"


def _refused_before(plate: str) -> Finding:
    check = Check(
        name="refused_before", group="contract", severity="critical", passed=False,
        where=f"plate {plate}" if plate else "the whole batch",
        observed="an earlier validation of exactly this delivery refused it",
        expected="a new delivery, with a new manifest",
        reason="A refusal is not undone by asking again.",
        remedy="Deliver a corrected batch; its manifest then differs.",
    )  # fmt: skip
    return Finding(check, plate)


def _quorum(accepted: int, plates: int, quorum: float) -> Finding:
    check = Check(
        name="enough_plates_are_left", group="contract", severity="critical", passed=False, where="the whole batch",
        observed=f"{accepted} of {plates} plates can be used",
        expected=f"at least {100 * quorum:.0f} % of the plates, and at least one",
        reason="Too little of the batch is left to adapt to it and to trust what comes out.",
        remedy="Correct the refused plates as their own checks say, and deliver the batch again.",
    )  # fmt: skip
    return Finding(check)


def sentence(
    batch_id: str, verdict: Verdict, findings: Sequence[Finding], accepted: Sequence[str], plates: Sequence[str]
) -> str:
    """Return the verdict as a sentence, with the first reason for each refused plate and what to do."""
    first: dict[str, Finding] = {}
    for finding in findings:
        if finding.stops:
            first.setdefault(finding.plate, finding)
    whole = first.pop("", None)
    reasons = {plate: first[plate] for plate in [*plates, *first] if plate in first}
    broken = {finding.plate for finding in findings if finding.stops and finding.check.name == CONTRACT}
    # ingest refused a plate for its broken contract: that is the same reason again
    stops = Counter(
        finding.plate
        for finding in findings
        if finding.stops and not (finding.check.name == DELIVERED and finding.plate in broken)
    )
    told = _told({plate: _brief(finding) + _further(stops[plate] - 1) for plate, finding in reasons.items()})
    advisers = list(reasons.values())
    if whole is not None and (whole.check.name != "enough_plates_are_left" or not reasons):
        told, advisers = [], [whole]  # what is wrong with the whole batch is wrong with every plate
    advice = list(dict.fromkeys(finding.check.remedy.rstrip(".") for finding in advisers))
    to_do = f" What to do: {'; '.join(advice[:2])}." if advice else ""
    if verdict == "refused":
        why = (
            f"{len(reasons)} of {len(plates)} plates cannot be used"
            if len(plates) > 1
            else "its one plate cannot be used"
        )
        if whole is not None and whole.check.name != "enough_plates_are_left":
            why = _brief(whole)
        return " ".join([f"Batch {batch_id} was refused: {why}.", *told]) + to_do
    warned = sum(item.check.severity == "warning" for item in findings if _concerns(item) and item.plate not in reasons)
    notes = f" with {warned} warning{'s' if warned != 1 else ''}" if warned else ""
    if not reasons:
        count = f"all {len(plates)} plates" if len(plates) > 1 else "its one plate"
        return f"Batch {batch_id} was accepted{notes}: {count} can be used."
    start = f"Batch {batch_id} was accepted in part{notes}: {len(accepted)} of {len(plates)} plates can be used."
    return " ".join([start, *told]) + to_do


def _told(reasons: Mapping[str, str], most: int = 3) -> list[str]:
    """Say each reason once, with the plates it is about; what goes beyond so many reasons is counted."""
    alike: dict[str, list[str]] = {}
    for plate, brief in reasons.items():
        alike.setdefault(brief, []).append(plate)
    told = [f"{_plates(names)}: {brief}." for brief, names in list(alike.items())[:most]]
    rest = sum(len(names) for names in list(alike.values())[most:])
    return [*told, f"And {rest} more plate{'s' if rest != 1 else ''}."] if rest else told


def _plates(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"Plate{'s' if len(names) > 1 else ''} {', '.join(names[:most])}{more}"


def _further(reasons: int) -> str:
    return f" (and {reasons} further reason{'s' if reasons != 1 else ''})" if reasons else ""


def _brief(finding: Finding) -> str:
    return finding.brief or finding.check.observed.rstrip(".")


def _concerns(finding: Finding) -> bool:
    return not finding.check.passed and finding.check.severity != "info"
