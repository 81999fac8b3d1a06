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
from coda.plates.dataset import BatchFolder, ingested_batches, open_fields, require_covered
from coda.plates.preparation import prepared, record_of
from coda.plates.stored import Fields
from coda.settings import Settings
from coda.steps.keeping import kept_checkpoints, stopping_on_sigterm
from coda.steps.progress_bar import shown
from coda.steps.recorded_serving import tell
from coda.steps.torchrun import processes_to_start, run_in_processes
from coda.steps.train_head import read_file
from coda.storage.plate_stores import DataStore
from coda.training.distributed import joined
from coda.training.images import place_fields
from coda.training.labels import read_labels
from coda.training.methods.base import SslResult, SslTask
from coda.training.methods.registry import method_of
from coda.training.split import held_out_fields
from coda.training.subset import chosen_fields


def pretrain(
    dataset: Path, out: Path, *, params: Params, settings: Settings, run_id: str, labels: str | None = None
) -> dict[str, float]:
    """Train by `ssl.method` on every accepted batch that is not held out; no mechanism is learned from.

    Writes ``out/extractor`` (which serves), ``out/state`` (what adaptation continues from) and
    ``out/pretraining.json`` (loss and health over time, alarms, what could be paired).

    Args:
        dataset: Dataset folder, validated.
        out: Folder for the results.
        params: All sections but ingest, quality and gate.
        settings: Where checkpoints are kept.
        run_id: Run this belongs to; an interrupted run resumes from its checkpoint.
        labels: Label table, read with ``pretrain.fields: labelled`` only: which compounds are in it, not what they do.

    Returns:
        Numbers for the run's metrics: iterations, seconds, samples_per_s, loss, pairable_share, alarms, ...

    Raises:
        ConfigError: The first weights cannot be had, there are too few batches, fields are smaller than crops.centre,
            nothing can be paired, or training diverged.
        IntegrityError: Stored fields are not the ones that were ingested.
        TransientError: The process was asked to stop; a checkpoint was written.
    """
    method = method_of(params.ssl.method)
    paths, told = {"dataset": dataset, "out": out}, {"labels": labels} if labels else {}
    if params.compute.nodes > 1 and "WORLD_SIZE" not in os.environ:
        # only here: a laptop needs no client of Kubernetes
        from coda.steps.nodes import run_on_nodes

        return run_on_nodes("pretrain", paths, params=params, settings=settings, run_id=run_id, texts=told)
    count = processes_to_start(params.compute, method.optimization(params, "pretrain").batch_size)
    if count > 1:
        return run_in_processes("pretrain", paths, count, params=params, settings=settings, run_id=run_id, texts=told)
    set_threads(params.compute)
    with joined() as world, stopping_on_sigterm() as should_stop, ExitStack() as first:
        batches = ingested_batches(dataset, DataStore(settings))
        fields = load_training_fields(batches, params)
        which = params.pretrain.fields
        compounds = _labelled_compounds(labels, settings) if which == "labelled" else None
        anchors = chosen_fields(fields.table, which, compounds, key="pretrain.fields")
        state = method.new_state(params, seed=params.seed)
        for network in (state.learner, state.extractor):
            network.config[TRAINED] |= record_of(prepared(batches))
        # one process keeps checkpoints, shows progress and writes what was learned
        checkpoints = first.enter_context(kept_checkpoints(settings, run_id, "pretrain")) if world.first else None
        report = first.enter_context(shown("Pretraining", params.compute)) if world.first else None
        task = SslTask(
            fields, "pretrain", params.pairs, params.seed, anchors=anchors,
            checkpoints=checkpoints, report=report, should_stop=should_stop,
        )  # fmt: skip
        result = method.train(state, params, task)
        if world.first:
            names = sorted(set(fields.table["Metadata_Source"] + "/" + fields.table["Metadata_Batch"]))
            provenance = {"batches": names, "params_digest": params_digest(params)}
            save_extractor(out / "extractor", state.extractor, provenance)
            method.save_state(out / "state", state)
            _record(out, result)
            tell(result.pairs.remarks())
        return _numbers(result)


def load_training_fields(batches: Sequence[BatchFolder], params: Params) -> Fields:
    """Return the accepted fields of the batches that are not held out; see `pretrain` for the errors."""
    stored = open_fields(batches, params.extractor.channels, params.crops.centre)
    # chosen before anything is read, so that what is held out takes neither time nor memory
    chosen = stored.take(~held_out_fields(stored.table, params.split))
    require_covered(chosen)
    return place_fields(chosen, params.compute.images)


def _labelled_compounds(labels: str | None, settings: Settings) -> tuple[str, ...] | None:
    return tuple(read_labels(read_file(labels, settings), labels).compounds) if labels else None


def _record(out: Path, result: SslResult) -> None:
    content = {"log": result.log, "alarms": result.alarms, "pairs": asdict(result.pairs), "speed": result.speed}
    (out / "pretraining.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _numbers(result: SslResult) -> dict[str, float]:
    last = result.log[-1]
    measured: list[str] = ["loss", "teacher_entropy", "feature_spread"]
    return {
        "iterations": float(result.iterations),
        "seconds": result.seconds,
        "samples_per_s": result.samples_per_s,
        **{name: last[name] for name in measured if name in last},
        "pairable_share": result.pairs.pairable_share,
        "alarms": float(len(result.alarms)),
    }
