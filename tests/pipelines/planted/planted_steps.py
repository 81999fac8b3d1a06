import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

HEX = "ab" * 32


def note(step, *paths):
    """Record the call; misbehave when told to; check that every input is there."""
    with Path(os.environ["PLANTED_CALLS"]).open("a") as file:
        file.write(step + "\n")
    behaviour = os.environ.get(f"PLANTED_{step.upper()}", "")
    flag = Path(os.environ["PLANTED_CALLS"]).with_name(f"{step}.misbehaved")
    if behaviour.startswith("once-") and flag.exists():
        behaviour = ""
    elif behaviour:
        flag.touch()
    from coda.errors import ContractError, Problem, TransientError

    if behaviour.endswith("contract"):
        raise ContractError("The plates cannot be used.", [Problem("plate p1, well C04", "no DNA", "DNA", "Stain it.")])
    if behaviour.endswith("transient"):
        raise TransientError("The bucket is away.")
    if behaviour.endswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour.endswith("defect"):
        raise ValueError("an unforeseen thing")
    if behaviour.endswith("runner"):
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(path)


def plan_groups(manifest_uris, *, params, settings):
    note("plan_plates")
    return ["1/2", "2/2"]


def plan_memory(manifest_uris, *, params, settings, with_archive):
    note("plan_memory")
    return "20Gi"


def ingest_group(manifest_uris, group, *, params, settings, shelf):
    note("ingest_plates")
    return 3


def ingest(manifest_uris, out, *, params, settings, shelf):
    note("ingest")
    for uri in manifest_uris:
        source, batch = uri.split("/")[-3:-1]
        folder = out / source / batch
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "uri.txt").write_text(uri)


def archive(dataset, out, *, params, settings):
    note("archive", dataset)


def validate(dataset, *, params, settings, history=None):
    note("validate", dataset, *([history] if history else []))
    from coda.contracts import QualityReport

    verdict = os.environ.get("PLANTED_VERDICT", "accepted")
    reports = []
    for folder in sorted(dataset.glob("*/*")):
        report = QualityReport(
            source=folder.parent.name,
            batch=folder.name,
            manifest_digest=HEX,
            suite_version="v",
            verdict=verdict,
            sentence=f"The batch is {verdict}.",
            fields_expected=1,
            fields_accepted=1,
        )
        report.write(folder / "quality.json")
        reports.append(report)
    return reports


def verdict(dataset):
    note("quality_verdict", dataset)
    reports = [json.loads(path.read_text()) for path in dataset.glob("*/*/quality.json")]
    return "refused" if any(report["verdict"] == "refused" for report in reports) else "accepted"


def version(dataset, out, *, params, settings, run_id):
    note("version", dataset)
    out.write_text("[]")


def read_revisions(path):
    return tuple(json.loads(path.read_text()))


def pretrain(dataset, out, *, params, settings, run_id, labels=None):
    note("pretrain", dataset)
    out.mkdir(parents=True)
    return {"loss": 1.5}


def train_head(dataset, pretrained, labels, out, *, params, settings, run_id):
    note("train_head", dataset, pretrained)
    out.mkdir(parents=True)
    return {"accuracy": 0.5}


def evaluate(dataset, pretrained, heads, labels, out, *, params, settings):
    note("evaluate", dataset, pretrained, heads)
    out.mkdir(parents=True)
    (out / "metrics.json").write_text("{}")
    return {"accuracy": 0.5}


def register_training(pretrained, heads, evaluation, revisions, out, *, params, settings, run_id):
    note("register_training", pretrained, heads, evaluation, revisions)
    _draft(out, run_id)


def register_adaptation(candidates, gate, revisions, out, *, params, settings, run_id, models):
    note("register_adaptation", candidates, models, gate, revisions)
    _draft(out, run_id)


def release(draft, out, *, settings, run_id, approver="gate"):
    note("release", draft)
    out.write_bytes(draft.read_bytes())


def adapt(dataset, archive, out, *, params, settings, run_id, models, features):
    note("adapt", dataset, archive)
    out.mkdir(parents=True)
    (models / "extractor").mkdir(parents=True)
    features.mkdir(parents=True)
    return []


def judge(dataset, candidates, out, *, params, settings, features):
    note("gate", dataset, candidates, features)
    from coda.contracts import GateReport

    GateReport(
        source="lab",
        batch="b1",
        manifest_digest=HEX,
        policy_version="v",
        baseline="unadapted",
        candidates=(),
        outcome="release",
        chosen="coda",
        sentence="Better than doing nothing.",
    ).write(out)


def predict(dataset, release, out, *, params, settings, gate, candidates, run_id):
    note("predict", dataset, release, gate, candidates)
    out.mkdir(parents=True)
    return {}


def report(
    dataset, out, *, params, settings, run_id, candidates=None, features=None, gate=None, release=None,
    predictions=None, evaluation=None,
):  # fmt: skip
    given = [path for path in (candidates, features, gate, release, predictions, evaluation) if path is not None]
    note("report" if given else "refusal_report", dataset, *given)
    out.write_text("<html></html>")
    return out


def broken_conclude(ended, *, params, settings):
    note("conclude")


def _draft(out, run_id):
    from coda.contracts import ModelRef, ReleaseRecord

    ReleaseRecord(
        release_id=f"r-{run_id}",
        source="lab",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        method="coda",
        extractor=ModelRef(name="extractor", version=1, digest=HEX),
        head=ModelRef(name="head", version=1, digest=HEX),
        alignment="none",
        run_id=run_id,
        params_digest=HEX,
        gate_sentence="Better.",
        approver="gate",
    ).write(out)


STEPS = {
    "sizing": [plan_memory],
    "plates": [plan_groups, ingest_group],
    "ingest": [ingest], "archive": [archive], "validate": [validate, verdict], "version": [version, read_revisions],
    "pretrain": [pretrain], "train_head": [train_head], "evaluate": [evaluate],
    "register_training": [register_training], "register_adaptation": [register_adaptation], "release": [release],
    "adapt": [adapt], "judge": [judge], "predict": [predict], "report": [report],
}  # fmt: skip
