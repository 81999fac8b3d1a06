"""Writes docs/registry_hour.md: an engineer's hour at the registry, by really running every command of it.

    python tests/registry/hour.py docs/registry_hour.md

The services are the embedded ones and the records are what the steps write; the networks have some kilobytes and random
weights, so that it takes a minute and not an afternoon.
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402
from tiny_models import tiny, train  # noqa: E402

from coda.adaptation.candidates import Candidate, write_candidates  # noqa: E402
from coda.config import Params, load_params  # noqa: E402
from coda.contracts import CandidateScore, GateReport, Measure  # noqa: E402
from coda.local.services import EmbeddedServices  # noqa: E402
from coda.networks import artifact  # noqa: E402
from coda.networks.extractor import save_extractor  # noqa: E402
from coda.registry import ReleaseLog, describe  # noqa: E402
from coda.registry.mlflow_client import connect  # noqa: E402
from coda.settings import Settings  # noqa: E402
from coda.steps.register_adaptation import register_adaptation  # noqa: E402
from coda.steps.register_training import register_training  # noqa: E402
from coda.steps.release import release  # noqa: E402
from coda.steps.version import write_revisions  # noqa: E402
from coda.storage.data_registry import commit_batch  # noqa: E402
from coda.storage.objects import store_for  # noqa: E402
from coda.training.methods.dino.state import load_state, save_state  # noqa: E402


@dataclass
class Hour:
    """The transcript as it grows."""

    work: Path
    settings: Settings
    environment: dict[str, str]
    text: str

    def say(self, words: str) -> None:
        self.text += f"\n{words}\n"

    def run(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "coda", "registry", *arguments]
        environment = {**os.environ, **self.environment, "COLUMNS": "100", "NO_COLOR": "1"}
        ours, its = pty.openpty()  # lists are for the terminal; in a pipe they are for programs
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        process = subprocess.Popen(command, stdout=its, stderr=its, env=environment)
        os.close(its)
        parts = []
        with suppress(OSError):  # how Linux ends a pseudo-terminal whose writer is gone
            while part := os.read(ours, 65536):
                parts.append(part)
        os.close(ours)
        code = process.wait()
        printed = re.sub(r"\x1b\[[0-9;]*m", "", b"".join(parts).decode()).replace("\r", "")
        shown = " ".join(f'"{item}"' if " " in item else item for item in arguments)
        output = "\n".join(line.rstrip() for line in printed.splitlines())
        status = f"\n(exit code {code})" if code else ""
        self.text += f"\n````console\n$ coda registry {shown}\n{output}{status}\n````\n"


def revisions(hour: Hour, source: str, batch: str) -> Path:
    folder = hour.work / "batches" / source / batch
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.parquet").write_bytes(f"{source} {batch}".encode())
    committed = commit_batch(folder, source, batch, settings=hour.settings, run_id=batch)
    return write_revisions(hour.work / f"{source}-{batch}.json", [committed])


def train_source(hour: Hour, params: Params) -> None:
    """A training run's last steps: two heads measured, both registered, the better one released."""
    folders = train(hour.work / "trained", params, seed=1)
    (hour.work / "metrics.json").write_text('{"none_accuracy_field": 0.61, "standardise_accuracy_field": 0.64}')
    register_training(
        folders.pretrained, folders.heads, hour.work / "metrics.json", revisions(hour, "source_3", "week_1"),
        hour.work / "draft.json", params=params, settings=hour.settings, run_id="train-source_3",
    )  # fmt: skip
    release(hour.work / "draft.json", hour.work / "out.json", settings=hour.settings, run_id="train-source_3")


def adapt(hour: Hour, params: Params, batch: str, chosen: str, outcome: str, gain: float) -> str:
    """An adaptation run's last steps, with a teacher whose blocks moved a little."""
    run = f"adapt-source_5-{batch}"
    folder = hour.work / run
    base = ReleaseLog(hour.settings).current("default")
    state = load_state(hour.work / "trained" / "pretrained" / "state")
    generator = torch.Generator().manual_seed(params.seed)
    with torch.no_grad():
        for weights in state.teacher.vit.blocks.parameters():
            weights.add_(0.01 * torch.randn(weights.shape, generator=generator))
    save_state(folder / "state", state)
    save_extractor(folder / "extractor", state.teacher)
    head = next(ref for ref in base.heads if describe(ref, settings=hour.settings).tags["alignment"] == "none")
    adapted = artifact.folder_digest(folder / "extractor")
    candidate = Candidate(
        name=chosen, extractor="adapted", alignment="coral" if "coral" in chosen else "none", head="none",
        head_digest=head.digest, extractor_digest=adapted,
    )  # fmt: skip
    write_candidates(folder, [candidate])
    base.write(folder / "base_release.json")
    measure = Measure(value=gain, low=gain - 0.02, high=gain + 0.02, n=40)
    score = CandidateScore(name=chosen, healthy=True, measures={"replicate_map": measure}, gain=measure)
    report = GateReport(
        source="source_5", batch=batch, manifest_digest="0" * 64, policy_version="v1", baseline="unadapted",
        candidates=(score,), outcome=outcome, chosen=chosen,
        sentence=f"{chosen} finds replicates better than doing nothing by {gain:.3f}.",
    )  # fmt: skip
    report.write(folder / "gate.json")
    store_for(hour.settings.platform, hour.settings).upload(folder / "gate.json", f"runs/{run}/gate.json")
    register_adaptation(
        folder, folder / "gate.json", revisions(hour, "source_5", batch), folder / "draft.json",
        params=params, settings=hour.settings, run_id=run,
    )  # fmt: skip
    release(folder / "draft.json", folder / "out.json", settings=hour.settings, run_id=run)
    return run


def spend(hour: Hour, params: Params) -> None:
    """The hour itself."""
    train_source(hour, params)
    first = adapt(hour, params, "week_10", "coda", "release", 0.041)
    held = adapt(hour, params.model_copy(update={"seed": 7}), "week_12", "coda+coral", "hold", 0.012)
    hour.say("## What serves\n\nThe gate released week 10 for source_5 and held week 12 for a person.")
    hour.run("list", "--versions")
    hour.say("## Compare\n\nThe draft of week 12 beside what serves:")
    hour.run("diff", "source_5", held)
    hour.say("## Promote\n\nAda looked, and promotes on the entry that she saw.")
    hour.run("promote", held, "--reason", "plates looked at, fine", "--by", "Ada", "--expected", "1")
    hour.say("## Bad promotions are refused\n\nBen decided on the entry before hers:")
    hour.run("promote", first, "--reason", "week 10 was fine", "--by", "Ben", "--expected", "1")
    hour.say("Somebody with access to the disk changes one byte of the first extractor's weights:")
    digest = ReleaseLog(hour.settings).history("source_5")[0].release.extractor.digest
    for path in (hour.work / "services").rglob("package/model/weights.safetensors"):
        if artifact.folder_digest(path.parent) == digest:
            shutil.copy(path, hour.work / "whole")
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            break
    hour.run("rollback", "source_5", "--reason", "fewer hits", "--by", "Ada")
    hour.say("## Roll back\n\nWith the byte restored:")
    shutil.copy(hour.work / "whole", path)
    hour.run("rollback", "source_5", "--reason", "fewer hits", "--by", "Ada")
    hour.say("## Audit\n\nWhat served source_5 today, who put it there, and why:")
    hour.run("history", "source_5", "--at", f"{datetime.now(UTC):%Y-%m-%d}")
    hour.say("An alias is moved by hand on MLflow's page; it is found, and put back from the log:")
    connect(hour.settings).set_registered_model_alias("coda-extractor", "serving-source_5", "1")
    hour.run("verify")
    hour.run("verify", "--all", "--repair")


def main() -> None:
    params = tiny(load_params(ROOT / "params.yaml", [ROOT / "params" / "demo.yaml"]))
    title = (
        "# Compare, promote, roll back and audit releases\n\n"
        "Made by `python tests/registry/hour.py`, which runs every command. Networks and\n"
    )
    title += "gate figures are made up and small; services, steps, records and refusals are the real ones.\n"
    with tempfile.TemporaryDirectory(prefix="hour-") as folder, EmbeddedServices(Path(folder) / "services") as services:
        hour = Hour(Path(folder), services.settings, services.environment, title)
        spend(hour, params)
    Path(sys.argv[1]).write_text(hour.text, encoding="utf-8")


if __name__ == "__main__":
    main()
