"""Step: pretrain the extractor by self-supervision on the source's batches (paper section 3, first step)."""

import json
from dataclasses import asdict
from pathlib import Path

from coda.config import params_digest
from coda.config.params import Params
from coda.networks.extractor import save_extractor
from coda.networks.runtime import set_threads
from coda.networks.state import new_state, save_state
from coda.plates.dataset import load_fields, open_batches
from coda.plates.fieldset import FieldSet
from coda.settings import Settings
from coda.steps.keeping import kept_checkpoints, stopping_on_sigterm
from coda.steps.progress import shown
from coda.training.dino import DinoResult, train_dino
from coda.training.split import held_out


def pretrain(dataset: Path, out: Path, *, params: Params, settings: Settings, run_id: str) -> dict[str, float]:
    """Train student and teacher on every accepted batch that is not held out; no label is read.

    Writes ``out/extractor`` (the teacher, which serves), ``out/state`` (what adaptation continues from) and
    ``out/pretraining.json`` (loss and health over time, alarms, what could be paired).

    Args:
        dataset: Dataset folder, validated.
        out: Folder for the results.
        params: All sections but ingest, quality and gate.
        settings: Where checkpoints are kept.
        run_id: Run this belongs to; an interrupted run goes on from its checkpoint.

    Returns:
        Numbers for the run's metrics: iterations, seconds, samples_per_s, loss, pairable_share, alarms, ...

    Raises:
        ConfigError: The first weights cannot be had, there are too few batches, nothing can be paired, or training
            diverged.
        IntegrityError: Stored fields are not the ones that were ingested.
        TransientError: The process was asked to stop; a checkpoint was written.
    """
    set_threads(params.compute)
    fields = load_training_fields(dataset, params)
    state = new_state(params, seed=params.seed)
    with (
        kept_checkpoints(settings, run_id, "pretrain") as checkpoints,
        stopping_on_sigterm() as should_stop,
        shown("Pretraining") as report,
    ):
        result = train_dino(
            fields, params, params.pretrain, state=state, seed=params.seed,
            checkpoints=checkpoints, report=report, should_stop=should_stop,
        )  # fmt: skip
        batches = sorted(set(fields.table["Metadata_Source"] + "/" + fields.table["Metadata_Batch"]))
        provenance = {"batches": batches, "params_digest": params_digest(params)}
        save_extractor(out / "extractor", state.teacher, provenance)
        save_state(out / "state", state)
        return _record(out, result)


def load_training_fields(dataset: Path, params: Params) -> FieldSet:
    """Return the accepted fields of the batches that are not held out; see `pretrain` for the errors."""
    fields = load_fields(open_batches(dataset), params.extractor.channels, params.crops.centre)
    return fields.take(~held_out(fields.table, params.head.validation_batches))


def _record(out: Path, result: DinoResult) -> dict[str, float]:
    content = {"log": result.log, "alarms": result.alarms, "pairs": asdict(result.pairs)}
    (out / "pretraining.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    last = result.log[-1]
    return {
        "iterations": float(last["iteration"] + 1),
        "seconds": result.seconds,
        "samples_per_s": result.samples_per_s,
        "loss": last["loss"],
        "teacher_entropy": last["teacher_entropy"],
        "feature_spread": last["feature_spread"],
        "pairable_share": result.pairs.pairable_share,
        "alarms": float(len(result.alarms)),
    }
