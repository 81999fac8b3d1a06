"""Step: train one head for each alignment on the frozen extractor's tokens (paper section 3, second step)."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

from coda.config import params_digest
from coda.config.params import Params
from coda.config.recorded import Today, set_aside, settled
from coda.contracts.recipe import CLASSICAL
from coda.errors import ConfigError, Problem
from coda.networks.artifact import folder_digest
from coda.networks.extractor import load_extractor
from coda.networks.head import LABEL_REPORT, LABELS, SOURCE_STATISTICS, save_head
from coda.networks.runtime import set_threads
from coda.plates.dataset import BatchFolder, ingested_batches, open_fields, require_covered
from coda.quality.fingerprints import FINGERPRINTS, fingerprints_of
from coda.settings import Settings
from coda.steps.keeping import kept_checkpoints, stopping_on_sigterm
from coda.steps.progress_bar import shown
from coda.steps.recorded_serving import facts_of, require_fitting, split_facts, tell
from coda.steps.torchrun import processes_to_start, run_in_processes
from coda.storage.failures import ObjectNotFoundError
from coda.storage.objects import locate
from coda.storage.plate_stores import DataStore
from coda.training.classical_training import ClassicalResult, train_classical
from coda.training.distributed import world
from coda.training.head import HeadResult
from coda.training.head import train_head as train
from coda.training.head_dataset import cache_head_tokens
from coda.training.images import place_fields
from coda.training.label_rule import read_report, report_beside
from coda.training.labels import JoinReport, LabelList, join, read_labels
from coda.training.split import held_out_fields


def train_head(
    dataset: Path, pretrained: Path, labels: str, out: Path, *, params: Params | Today, settings: Settings, run_id: str
) -> dict[str, float]:
    """Train the heads, the classical one among them; with evaluation, the only step that reads a mechanism of action.

    Writes ``out/<alignment>`` (model folder with label list, label report and source statistics) for each of
    ``head.alignments``, ``out/classical`` (on profiles, decision 0046), ``out/training.json`` (validations over
    time, and what the label table missed), and what the stains look like (decision 0051).

    Args:
        dataset: Dataset folder, validated; the same as for `coda.steps.pretrain.pretrain`.
        pretrained: Output of pretraining.
        labels: Label table: path or s3:// address of a CSV with Metadata_Compound and moa. The report that `coda labels
            build` wrote beside it goes with the heads.
        out: Folder for the heads.
        params: All sections but ingest, quality and gate. A stated value that contradicts what the extractor was made
            with is refused; a default gives way to it.
        settings: Where object storage is, and where checkpoints are kept.
        run_id: Run this belongs to, noted with the results; an interrupted run resumes from its checkpoint.

    Returns:
        Numbers for the run's metrics: for each alignment the held-out field accuracy and seconds, and the join.

    Raises:
        ContractError: The label table cannot be used or does not belong to the plates.
        ConfigError: There are too few batches, no labelled field, or training diverged.
        IntegrityError: The extractor or stored fields are not the recorded ones.
        TransientError: The process was asked to stop; a checkpoint was written.
    """
    today, where = Today.of(params), str(pretrained / "extractor")
    count = processes_to_start(today.params.compute, today.params.head.budget.batch_size)
    if count > 1:
        paths = {"dataset": dataset, "pretrained": pretrained, "out": out}
        return run_in_processes(
            "train_head", paths, count, params=today, settings=settings, run_id=run_id, texts={"labels": labels}
        )
    extractor = load_extractor(pretrained / "extractor")
    # batches that the extractor has learned from are no test of a head
    facts = facts_of([(where, extractor.config)]) | split_facts(extractor.config, where)
    params = settled(facts, today)
    set_threads(params.compute)
    batches = ingested_batches(dataset, DataStore(settings))
    tell([*set_aside(facts, today), *require_fitting(batches, extractor, where)])
    stored = open_fields(batches, extractor.channels, params.crops.centre)
    require_covered(stored)
    fields = place_fields(stored, params.compute.images)
    validation = held_out_fields(fields.table, params.split)
    training_fields, validation_fields = fields.take(~validation), fields.take(validation)
    table = read_labels(read_file(labels, settings), labels, built=is_built(labels, settings))
    built = built_report(labels, table, settings)
    label_list, joined = join(table, training_fields.table, labels)
    sys.stderr.write(f"{describe_join(joined, label_list)}\n")
    cached = cache_head_tokens(extractor, training_fields, validation_fields, label_list, params, seed=params.seed)
    extra = {
        LABELS: label_list.to_bytes(),
        LABEL_REPORT: _written({"table": built, "join": asdict(joined)}),
        SOURCE_STATISTICS: cached.source.to_bytes(),
    }
    provenance = {
        "extractor": folder_digest(pretrained / "extractor"), "labels": label_list.digest,
        "params_digest": params_digest(params),
    }  # fmt: skip
    results: dict[str, HeadResult] = {}
    with ExitStack() as kept:
        should_stop = kept.enter_context(stopping_on_sigterm())
        for alignment in params.head.alignments:
            # forgotten when all are done: an interruption of the second head does not cost the first one
            own = kept_checkpoints(settings, run_id, f"head-{alignment}") if world().first else nullcontext()
            checkpoints = kept.enter_context(own)
            title = f"Head on {'raw' if alignment == 'none' else 'standardised'} tokens"
            with shown(title, params.compute) if world().first else nullcontext() as report:
                results[alignment] = train(
                    partial(cached.training, alignment), cached.validation(alignment), extractor, params,
                    classes=label_list.classes, alignment=alignment, seed=params.seed,
                    checkpoints=checkpoints, report=report, should_stop=should_stop,
                )  # fmt: skip
            save_head(out / alignment, results[alignment].head, extra, provenance)
        classical = train_classical(extractor, training_fields, validation_fields, label_list, params)
        extra[SOURCE_STATISTICS] = classical.source.to_bytes()
        save_head(out / CLASSICAL, classical.head, extra, provenance)
        _keep_stains(out, batches)
        return _record(out, {**results, CLASSICAL: classical}, joined, run_id)


def read_file(uri: str, settings: Settings) -> bytes:
    """Return the bytes behind a path or an s3:// address.

    Raises:
        ConfigError: There is no such file.
    """
    try:
        if uri.startswith("s3://"):
            store, name = locate(uri, settings)
            return store.get(name)
        return Path(uri).read_bytes()
    except FileNotFoundError as error:
        problem = Problem(uri, "no such file", "a CSV with Metadata_Compound and moa", "Check the address.")
        raise ConfigError("The label table is not there.", [problem]) from error


def built_report(labels: str, table: LabelList, settings: Settings) -> dict[str, object] | None:
    """Return the report of how a label table was built, which lies beside it; None where there is none.

    Raises:
        ContractError: It is the report of another table.
    """
    content = _report(labels, settings)
    return None if content is None else read_report(content, table, report_beside(labels))


def is_built(labels: str, settings: Settings) -> bool:
    """Return whether `coda labels build` made a label table: its report lies beside it."""
    return _report(labels, settings) is not None


def _report(labels: str, settings: Settings) -> bytes | None:
    try:
        return read_file(report_beside(labels), settings)
    except (ConfigError, ObjectNotFoundError):
        # a table that was written by hand has none; who may not list a bucket is told 'forbidden' of what is not there
        return None


def describe_join(joined: JoinReport, labels: LabelList) -> str:
    """Say in a sentence or two what was joined and what was missed."""
    text = (
        f"{joined.labelled_fields} training fields have a label: {len(labels.compounds)} compounds of "
        f"{len(labels.classes)} mechanisms."
    )
    if joined.missed_compounds:
        examples = ", ".join(joined.missed_compounds[:5])
        text += f" {len(joined.missed_compounds)} compounds on the plates have none ({examples}): not used."
    if joined.absent_compounds:
        text += f" {len(joined.absent_compounds)} labelled compounds are on no plate."
    return text


def _keep_stains(out: Path, batches: Sequence[BatchFolder]) -> None:
    stains = fingerprints_of([batch.accepted for batch in batches])
    if stains is not None:
        stains.write(out / FINGERPRINTS)


def _record(
    out: Path, results: Mapping[str, HeadResult | ClassicalResult], joined: JoinReport, run_id: str
) -> dict[str, float]:
    content = {
        "run_id": run_id,
        "labels": asdict(joined),
        "heads": {name: {"accuracy": result.accuracy, "log": result.log} for name, result in results.items()},
    }
    (out / "training.json").write_bytes(_written(content))
    numbers = {
        "labelled_fields": float(joined.labelled_fields),
        "missed_compounds": float(len(joined.missed_compounds)),
    }
    for name, result in results.items():
        numbers |= {f"{name}_held_out_accuracy": result.accuracy, f"{name}_seconds": result.seconds}
    return numbers


def _written(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
