"""The rules of labels: which compounds a head learns, with a report of all that were left out and why.

The paper trains on the compounds of JUMP-Target-2 that have one mechanism; it does not say how the annotations were
joined, nor which of the remaining classes were kept. The rules here are ours, stated whole (docs/labels.md):

1. Rows of the annotation that are about one compound count together.
2. What a compound of these mechanisms is learned as is the rule's own (`LabelRule`): by 'single-mechanism-1' one with
   exactly one mechanism can be learned; with none, or with several ('|'), it is left out.
3. Controls are left out: negative ones always, positive ones unless they are asked for.
4. A mechanism needs at least two compounds that are left; with one, a head would learn a compound and not a mechanism.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from coda.errors import ConfigError, ContractError, Problem
from coda.training.annotations import Annotated
from coda.training.labels import COMPOUND, MECHANISM, LabelList

LEAST_COMPOUNDS = 2


@dataclass(frozen=True)
class LabelRule:
    """What a compound is learned as.

    Attributes:
        name: Name and version, which reports keep; another rule gets another name.
        says: Which compounds it learns, in a few words.
        label: Returns the label of a compound, given its mechanisms (one or more); None leaves it out.
    """

    name: str
    says: str
    label: Callable[[Sequence[str]], str | None]


LABEL_RULES = {
    rule.name: rule
    for rule in (
        LabelRule("single-mechanism-1", "exactly one mechanism", lambda found: None if found[1:] else found[0]),
    )
}
"""Name -> rule."""

DEFAULT_RULE = "single-mechanism-1"


@dataclass(frozen=True)
class Dropped:
    """Compounds that are in the annotations and not in the label table, by the first reason that holds.

    Attributes:
        no_mechanism: The annotation has a row without a mechanism.
        several_mechanisms: Compound that the rule gives no label -> its mechanisms.
        controls: Compound with one mechanism -> 'negcon', 'poscon' or 'empty'.
        too_few: Compound -> its mechanism, that no second compound has.
    """

    no_mechanism: tuple[str, ...]
    several_mechanisms: Mapping[str, tuple[str, ...]]
    controls: Mapping[str, str]
    too_few: Mapping[str, str]


@dataclass(frozen=True)
class LabelReport:
    """What became of compounds and annotations.

    Attributes:
        rule: Name of the rule.
        options: How it was applied: the join, the columns, which controls were kept, the least number of compounds.
        inputs: Name of each file that was read -> its SHA-256.
        counts: Numbers of compounds (and classes) at each stage.
        classes: Mechanism -> compounds in the label table.
        missed: Compounds that the annotations do not know.
        by_block: Compounds that were only found by the first block of their InChIKey.
        dropped: Compounds that were left out, and why.
        spellings: Mechanism as it is shown -> its spellings in the annotations, where there are several; joined.
        solvents: Compounds that were taken for negative controls by their names.
        digest: Digest of the label list, as a head records it.
    """

    rule: str
    options: Mapping[str, object]
    inputs: Mapping[str, str]
    counts: Mapping[str, int]
    classes: Mapping[str, int]
    missed: tuple[str, ...]
    by_block: tuple[str, ...]
    dropped: Dropped
    spellings: Mapping[str, tuple[str, ...]]
    solvents: tuple[str, ...]
    digest: str

    def to_bytes(self) -> bytes:
        """Return the report as JSON."""
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()


def rule_of(name: str) -> LabelRule:
    """Return the rule of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in LABEL_RULES:
        known = "; ".join(f"{rule.name} ({rule.says})" for rule in LABEL_RULES.values())
        raise ConfigError("There is no such rule of labels.", [Problem("--rule", name, known, "Choose one of these.")])
    return LABEL_RULES[name]


def labels_by(
    rule: LabelRule, annotated: Annotated, controls: Mapping[str, str], *,
    keep_poscon: bool = False, least: int = LEAST_COMPOUNDS,
) -> tuple[LabelList, Dropped, dict[str, int]]:  # fmt: skip
    """Apply a rule.

    Args:
        rule: What a compound is learned as.
        annotated: Compounds with their mechanisms.
        controls: Compound -> 'negcon', 'poscon' or 'empty', for those that are controls.
        keep_poscon: Whether positive controls are learned as other compounds are.
        least: Compounds that a mechanism needs, at least 1.

    Returns:
        The labels; what was left out; and counts: 'compounds' (of the compound table); 'annotated', 'one_mechanism'
        (with a label by the rule) and 'classes_of_one_mechanism' (negative controls and empty wells apart);
        'labelled' and 'classes'.

    Raises:
        ContractError: Fewer than two mechanisms are left.
    """
    apart = {name: kind for name, kind in controls.items() if kind != "poscon" or not keep_poscon}
    mechanisms = annotated.mechanisms
    ruled = {name: rule.label(found) for name, found in mechanisms.items() if found}
    one = {name: label for name, label in ruled.items() if label is not None}
    candidates = {name: mechanism for name, mechanism in one.items() if name not in apart}
    sizes = Counter(candidates.values())
    labels = LabelList({name: mechanism for name, mechanism in candidates.items() if sizes[mechanism] >= least})
    dropped = Dropped(
        no_mechanism=tuple(name for name, found in mechanisms.items() if not found),
        several_mechanisms={name: mechanisms[name] for name, label in ruled.items() if label is None},
        controls={name: apart[name] for name in one if name in apart},
        too_few={name: mechanism for name, mechanism in candidates.items() if name not in labels.compounds},
    )
    treated = [name for name in ruled if controls.get(name) not in {"negcon", "empty"}]
    single = [one[name] for name in treated if name in one]
    counts = {
        "compounds": len(mechanisms) + len(annotated.missed),
        "annotated": len(treated),
        "one_mechanism": len(single),
        "classes_of_one_mechanism": len(set(single)),
        "labelled": len(labels.compounds),
        "classes": len(labels.classes),
    }
    if len(labels.classes) < 2:
        found_ = f"{len(labels.compounds)} compound(s) of {len(labels.classes)} mechanism(s)"
        remedy = "Check the counts: join by another column, or annotate more compounds."
        problem = Problem(f"the rule {rule.name}", f"{found_} ({counts})", "at least two mechanisms", remedy)
        raise ContractError("No head can be trained with these labels.", [problem])
    return labels, dropped, counts


def report_of(
    rule: LabelRule, labels: LabelList, dropped: Dropped, counts: Mapping[str, int], annotated: Annotated, *,
    options: Mapping[str, object], inputs: Mapping[str, bytes], solvents: Sequence[str] = (),
) -> LabelReport:  # fmt: skip
    """Return the report of a label table.

    Args:
        rule: The rule that was applied.
        labels: The labels.
        dropped: What was left out.
        counts: Numbers, from `labels_by`.
        annotated: What was joined.
        options: How the rule was applied.
        inputs: Files that were read, by name.
        solvents: Compounds that were taken for negative controls by their names.
    """
    return LabelReport(
        rule=rule.name,
        options=dict(options),
        inputs={name: hashlib.sha256(content).hexdigest() for name, content in inputs.items()},
        counts={**counts, "unused_annotations": annotated.unused, "annotation_rows": annotated.rows},
        classes=dict(sorted(Counter(labels.compounds.values()).items())),
        missed=annotated.missed,
        by_block=annotated.by_block,
        dropped=dropped,
        spellings=annotated.joined,
        solvents=tuple(solvents),
        digest=labels.digest,
    )


def table_of(labels: LabelList) -> bytes:
    """Return a label table as CSV, as training reads it: a row for each compound, in alphabetical order."""
    rows = sorted(labels.compounds.items())
    return pd.DataFrame(rows, columns=[COMPOUND, MECHANISM]).to_csv(index=False, lineterminator="\n").encode()


REPORT_ENDING = ".report.json"


def report_beside(table: str) -> str:
    """Return where the report of a label table stands: 'labels.csv' has 'labels.report.json' beside it."""
    return table.removesuffix(".csv") + REPORT_ENDING


def read_report(content: bytes, labels: LabelList, where: str) -> dict[str, object]:
    """Read the report beside a label table, and hold it against the table.

    Raises:
        ContractError: It is no report, or that of another table: the table was changed by hand since.
    """
    remedy = "Build the label table again (coda labels build), or remove the report."
    try:
        report = json.loads(content)
    except (ValueError, RecursionError) as error:
        problem = Problem(where, f"text that is not JSON ({error})", "the report of a label table", remedy)
        raise ContractError(f"{where} cannot be read.", [problem]) from error
    digest = report.get("digest") if isinstance(report, dict) else None
    if digest != labels.digest:
        problem = Problem(where, f"labels of digest {str(digest)[:16]}", f"digest {labels.digest[:16]}", remedy)
        raise ContractError(f"{where} is about another label table.", [problem])
    return dict(report)
