"""Model cards for people, generated from records alone: of one version, and of one release."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coda.contracts import PointerEntry, ReleaseRecord

DESCRIPTION_LENGTH = 5000
"""MLflow's limit for the description of a version; the whole card is the version's ``model_card.md``."""

_USES = {
    "extractor": (
        "Turns normalised Cell Painting fields of the stains {channels} into tokens of width {width} for a head of the "
        "same line (`{line}`). Adapted extractors are for the source they were adapted to: **{source}**."
    ),
    "head": (
        "Gives each field a probability for each of {classes} mechanisms of action, from the tokens of an extractor of "
        "the same line (`{line}`), with alignment `{alignment}`. It stays frozen while extractors are adapted."
    ),
}
_NOT_FOR = "For screening research. Not for diagnosis, and not for stains, magnifications or cells it never saw."
_DIGESTS = {
    "digest": "model folder",
    "weights_digest": "weights",
    "config_digest": "configuration",
    "labels_digest": "label list",
    "label_report_digest": "label report",
    "label_table": "label table",
    "statistics_digest": "statistics of the training tokens",
    "state_digest": "adaptation state",
    "params_digest": "parameters",
    "gate_digest": "gate report",
    "files_digest": "list of all files",
}
"""Tag of a version -> what it is the digest of."""


def version_card(
    name: str,
    tags: Mapping[str, str],
    provenance: Mapping[str, Any],
    config: Mapping[str, Any],
    number: int | None = None,
    served: Sequence[str] = (),
) -> str:
    """Return the card of one version as Markdown.

    Args:
        name: Registered model.
        tags: Tags of the version.
        provenance: Its ``provenance.json``.
        config: Config of its model folder.
        number: Its number; none while it is being registered.
        served: Scopes and times it serves or served, in words.
    """
    kind = tags["kind"]
    stains = tags.get("channels", "?").replace(",", ", ")
    words = {**tags, "classes": len(config.get("classes", ())), "line": tags["line"][:12], "channels": stains}
    lines = [f"# {name}{'' if number is None else f' version {number}'}", ""]
    lines += ["## Intended use", "", _USES[kind].format(**{"source": "?", **words}), "", _NOT_FOR, ""]
    if served:
        lines += ["Serves or served:", "", *(f"- {item}" for item in served), ""]
    lines += ["## Data", "", *_data(provenance.get("data", ())), "", _labels(kind, tags, config), ""]
    lines += ["## Training", "", *_training(tags, provenance, config), ""]
    lines += ["## Metrics and gate", "", *_figures(tags), *_gate(provenance.get("gate_report"), tags), ""]
    lines += ["## Limits", "", *(f"- {item}" for item in _limits(kind, tags, provenance)), ""]
    digests = [(words, f"`{tags[tag]}`") for tag, words in _DIGESTS.items() if tag in tags]
    lines += ["## Digests", "", *_table(("what", "SHA-256"), digests)]
    signed = f"Signed with the key `{tags['signed_by']}`." if "signed_by" in tags else "Not signed."
    return "\n".join([*lines, "", signed, "", "## How to load", "", *_loading(name, number)]) + "\n"


def release_card(
    record: ReleaseRecord, report: Mapping[str, Any] | None, entries: Sequence[PointerEntry], params: Mapping[str, Any]
) -> str:
    """Return the card of one release as Markdown.

    Args:
        record: The release.
        report: Its gate report as JSON values, where it had one.
        entries: Entries of the release log with this release.
        params: Parameters of its run; empty where they were not kept.
    """
    fitted = "" if record.alignment == "none" else " (a batch's own statistics are fitted anew on every batch)"
    use = (
        f"Predicts mechanisms of action for batches of **{record.source}**: extractor version "
        f"{record.extractor.version} and head version {record.head.version}, one unit, method `{record.method}`, "
        f"alignment `{record.alignment}`{fitted}."
    )
    lines = [f"# Release {record.release_id}", "", "## Intended use", "", use, "", _NOT_FOR, ""]
    moves = [f"- {e.scope}: {e.action} {e.at:%Y-%m-%d %H:%M} UTC by {e.by}: {e.reason}" for e in entries]
    lines += ["Moves of its pointers:", "", *(moves or ["- none: a draft that was never promoted"]), ""]
    lines += ["## Data", "", *_data([item.model_dump(mode="json") for item in record.data]), ""]
    lines += ["## Training", "", f"- run `{record.run_id}`, {record.created_at:%Y-%m-%d %H:%M} UTC"]
    if record.base_release:
        lines.append(f"- adapted from release `{record.base_release}`; the head stayed frozen")
    lines += [f"- seed {params['seed']}"] if "seed" in params else []
    lines += ["", "## Metrics and gate", "", record.gate_sentence, f"Approved by: {record.approver}.", ""]
    judged = {"gate_digest": record.gate_digest} if record.gate_digest else {}
    lines += [*_gate(report, judged), "", "## Limits", ""]
    limits = [*_adapted_limits(adapted=record.base_release is not None), *_remarks(report)]
    lines += [*(f"- {item}" for item in limits), "", "## Digests", ""]
    rows = [(f"{ref.name} version {ref.version}", f"`{ref.digest}`") for ref in (record.extractor, record.head)]
    rows += [("parameters", f"`{record.params_digest}`")]
    rows += [("gate report", f"`{record.gate_digest}`")] if record.gate_digest else []
    rows += (
        [("alignment statistics of the source", f"`{record.statistics_digest}`")] if record.statistics_digest else []
    )
    lines += [*_table(("what", "SHA-256"), rows), "", "## How to load", ""]
    lines += ["```python", "from coda.registry import ReleaseLog, fetch", ""]
    lines += [f'record = ReleaseLog(settings).serving("{record.source}")  # what serves now']
    lines += ['folder = fetch(record.extractor, Path("extractor"), settings=settings)', "```"]
    return "\n".join(lines) + "\n"


def _data(revisions: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [(f"{d['source']}/{d['batch']}", f"`{d['revision'][:12]}`", f"`{d['digest']}`") for d in revisions]
    return _table(("batch", "revision", "digest"), rows) if rows else ["No data revision was recorded."]


def _labels(kind: str, tags: Mapping[str, str], config: Mapping[str, Any]) -> str:
    if kind == "extractor":
        return "No label was used: neither pretraining nor adaptation reads a mechanism of action."
    classes = config.get("classes", ())
    table = f"label table `{tags['label_table'][:12]}`" if "label_table" in tags else "a label table without a digest"
    shown = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    return f"Labels: {table}; {len(classes)} classes: {shown}."


def _training(tags: Mapping[str, str], provenance: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    words = {
        "run_id": "run", "method": "method", "base_release": "adapted from release", "parent_version": "parent version",
        "extractor_version": "trained on the tokens of extractor version", "head_version": "judged with head version",
        "code_version": "code (Git revision)", "image": "image",
        "lock_digest": "packages of the image (SHA-256 of requirements.lock)",
    }  # fmt: skip
    lines = [f"- {text}: `{tags[tag]}`" for tag, text in words.items() if tag in tags]
    lines.append(f"- network: `{config.get('arch')}` {dict(config.get('overrides', {}))}")
    if "seed" in provenance.get("params", {}):
        lines.append(f"- seed: {provenance['params']['seed']} (all parameters: provenance.json)")
    return lines


def _figures(tags: Mapping[str, str]) -> list[str]:
    rows = [(name, f"{float(tags[name]):.3f}") for name in sorted(tags) if "_accuracy_" in name]
    lines = [*_table(("measured on held-out batches", "value"), rows), ""] if rows else []
    return lines + ([tags["gate"], ""] if "gate" in tags else [])


def _gate(report: Mapping[str, Any] | None, record: Mapping[str, str]) -> list[str]:
    if not report and "gate_digest" in record:
        return ["The gate's report was not kept with the run; its digest is below."]
    if not report:
        return ["No gate judged it: it was trained on labelled batches of its source."]
    rows = []
    for item in report.get("candidates", ()):
        gain = item.get("gain") or {}
        interval = f" [{gain['low']:.3f}, {gain['high']:.3f}]" if gain.get("low") is not None else ""
        mark = " (chosen)" if item.get("name") == report.get("chosen") else ""
        healthy = "yes" if item.get("healthy") else f"no: {'; '.join(item.get('health_reasons', ()))}"
        rows.append((f"{item.get('name')}{mark}", healthy, f"{gain['value']:.3f}{interval}" if gain else "-"))
    sentence = f"Gate on {report.get('source')}/{report.get('batch')}: {report.get('outcome')}."
    return [sentence, "", *_table(("candidate", "healthy", "gain over the baseline"), rows)]


def _limits(kind: str, tags: Mapping[str, str], provenance: Mapping[str, Any]) -> list[str]:
    limits = [f"Reads exactly the stains {tags.get('channels', '?').replace(',', ', ')}, in this order."]
    if kind == "head":
        limits.append("Knows only its own classes: a compound with another mechanism gets one of them all the same.")
        if not any("_accuracy_" in name for name in tags):
            limits.append("Nothing was held out, so its accuracy was never measured.")
    return [*limits, *_adapted_limits(adapted="base_release" in tags), *_remarks(provenance.get("gate_report"))]


def _adapted_limits(*, adapted: bool) -> list[str]:
    if adapted:
        return ["Adapted and judged without labels: its accuracy on the source it serves is not known."]
    return ["Measured on its own source; on plates of another laboratory, microscope or week it may be far worse."]


def _remarks(report: Mapping[str, Any] | None) -> list[str]:
    return [f"Gate: {item}" for item in (report or {}).get("advice", ())]


def _loading(name: str, number: int | None) -> list[str]:
    version = "VERSION" if number is None else number
    return [
        "```python",
        f'tokens_or_probabilities = mlflow.pyfunc.load_model("models:/{name}/{version}").predict(array)',
        "```",
        "",
        "Or `coda.registry.fetch`, which also compares the digest with the one that the release recorded. No pickle.",
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruled = [tuple(header), tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in ruled]
