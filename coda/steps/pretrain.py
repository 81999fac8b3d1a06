"""Step: pretrain the extractor by self-supervision on the source's batches (paper section 3, first step)."""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from coda.config import params_digest
from coda.config.params import Params
from coda.config.recorded import TRAINED
from coda.networks.extractor import save_extractor
from coda.networks.runtime import set_threads
from coda.networks.state import new_state, save_state
from coda.plates.dataset import BatchFolder, open_batches, open_fields, require_covered
from coda.plates.fieldset import FieldSet
from coda.plates.preparation import prepared, record_of
from coda.plates.stored import StoredFields
from coda.settings import Settings
from coda.steps.keeping import kept_checkpoints, stopping_on_sigterm
from coda.steps.progress_bar import shown
from coda.steps.torchrun import processes_to_start, run_in_processes
from coda.steps.train_head import read_file
from coda.storage.plate_stores import DataStore
from coda.training.dino import DinoResult, train_dino
from coda.training.distributed import joined
from coda.training.images import place_fields
from coda.training.labels import read_labels
from coda.training.split import held_out_fields
from coda.training.subset import chosen_fields


def pretrain(
    dataset: Path, out: Path, *, params: Params, settings: Settings, run_id: str, labels: str | None = None
) -> dict[str, float]:
    """Train student and teacher on every accepted batch that is not held out; no mechanism is learned from.

    Writes ``out/extractor`` (the teacher, which serves), ``out/state`` (what adaptation continues from) and
    ``out/pretraining.json`` (loss and health over time, alarms, what could be paired).

    Args:
        dataset: Dataset folder, validated.
        out: Folder for the results.
        params: All sections but ingest, quality and gate.
        settings: Where checkpoints are kept.
        run_id: Run this belongs to; an interrupted run goes on from its checkpoint.
        labels: Label table, read with ``pretrain.fields: labelled`` only: which compounds are in it, not what they do.

    Returns:
        Numbers for the run's metrics: iterations, seconds, samples_per_s, loss, pairable_share, alarms, ...

    Raises:
        ConfigError: The first weights cannot be had, there are too few batches, fields are smaller than crops.centre,
            nothing can be paired, or training diverged.
        IntegrityError: Stored fields are not the ones that were ingested.
        TransientError: The process was asked to stop; a checkpoint was written.
    """
    paths, told = {"dataset": dataset, "out": out}, {"labels": labels} if labels else {}
    if params.compute.nodes > 1 and "WORLD_SIZE" not in os.environ:
        # only here: a laptop needs no client of Kubernetes
        from coda.steps.nodes import run_on_nodes

        return run_on_nodes("pretrain", paths, params=params, settings=settings, run_id=run_id, texts=told)
    count = processes_to_start(params.compute, params.pretrain.batch_size)
    if count > 1:
        return run_in_processes("pretrain", paths, count, params=params, settings=settings, run_id=run_id, texts=told)
    set_threads(params.compute)
    with joined() as world, stopping_on_sigterm() as should_stop, ExitStack() as first:
        batches = open_batches(dataset, DataStore(settings))
        fields = load_training_fields(batches, params)
        own = params.pretrain
        compounds = _labelled_compounds(labels, settings) if own.fields == "labelled" else None
        anchors = chosen_fields(fields.table, own.fields, compounds, key="pretrain.fields")
        state = new_state(params, seed=params.seed)
        for network in (state.student, state.teacher):
            network.config[TRAINED] |= record_of(prepared(batches))
        # one process keeps checkpoints, shows progress and writes what was learned
        checkpoints = first.enter_context(kept_checkpoints(settings, run_id, "pretrain")) if world.first else None
        report = first.enter_context(shown("Pretraining", params.compute)) if world.first else None
        result = train_dino(
            fields, params, own, state=state, seed=params.seed, anchors=anchors, keep_moments=own.keep_optimizer,
            checkpoints=checkpoints, report=report, should_stop=should_stop,
        )  # fmt: skip
        if world.first:
            names = sorted(set(fields.table["Metadata_Source"] + "/" + fields.table["Metadata_Batch"]))
            provenance = {"batches": names, "params_digest": params_digest(params)}
            save_extractor(out / "extractor", state.teacher, provenance)
            save_state(out / "state", state)
            _record(out, result)
        return _numbers(result)


def load_training_fields(batches: Sequence[BatchFolder], params: Params) -> FieldSet | StoredFields:
    """Return the accepted fields of the batches that are not held out; see `pretrain` for the errors."""
    stored = open_fields(batches, params.extractor.channels, params.crops.centre)
    # chosen before anything is read, so that what is held out takes neither time nor memory
    chosen = stored.take(~held_out_fields(stored.table, params.split))
    require_covered(chosen)
    return place_fields(chosen, params.compute.images)


def _labelled_compounds(labels: str | None, settings: Settings) -> tuple[str, ...] | None:
    return tuple(read_labels(read_file(labels, settings), labels).compounds) if labels else None


def _record(out: Path, result: DinoResult) -> None:
    content = {"log": result.log, "alarms": result.alarms, "pairs": asdict(result.pairs), "speed": result.speed}
    (out / "pretraining.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _numbers(result: DinoResult) -> dict[str, float]:
    last = result.log[-1]
    return {
        "iterations": float(result.iterations),
        "seconds": result.seconds,
        "samples_per_s": result.samples_per_s,
        "loss": last["loss"],
        "teacher_entropy": last["teacher_entropy"],
        "feature_spread": last["feature_spread"],
        "pairable_share": result.pairs.pairable_share,
        "alarms": float(len(result.alarms)),
    }
