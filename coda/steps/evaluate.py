"""Step: measure every head on the held-out batches of the source."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from coda.config.params import Params, Split
from coda.config.recorded import Today, joined, set_aside, told
from coda.config.served_params import LEAST, NEEDED, Serving
from coda.contracts.fields import METADATA_COLUMNS
from coda.errors import ConfigError, Problem
from coda.evaluation.metrics.accuracy import accuracy, macro_f1
from coda.evaluation.predictions.prediction_levels import well_features
from coda.networks import artifact
from coda.networks.classical_head import ClassicalHead, front_of
from coda.networks.extractor import Extractor, load_extractor
from coda.networks.head import LABELS, Head, load_head, load_source_statistics
from coda.networks.profile import Profile
from coda.networks.runtime import set_threads
from coda.plates.dataset import ingested_batches, open_fields
from coda.plates.stored import read_fields
from coda.settings import Settings
from coda.steps.recorded_serving import facts_of, require_fitting, serving_of, split_facts, tell
from coda.steps.train_head import is_built, read_file
from coda.storage.plate_stores import DataStore
from coda.training.groups import group_statistics, standardise_groups
from coda.training.labels import LabelList, read_labels
from coda.training.profiles import extract_profiles
from coda.training.split import group_names, held_out_fields
from coda.training.tokens import extract_tokens, field_probabilities


def evaluate(
    dataset: Path, pretrained: Path, heads: Path, labels: str, out: Path, *, params: Params | Today, settings: Settings
) -> dict[str, float]:
    """Predict the held-out batches with every head and compare with the label table.

    The fields that the plateau schedule validated on are the ones measured here, as in the paper: with one batch held
    out, the score is slightly flattering. Writes ``out/metrics.json`` and ``out/<alignment>.parquet`` (one row a field
    with probabilities, so that any other score can be computed later).

    Args:
        dataset: Dataset folder, validated; the same as for training.
        pretrained: Output of pretraining.
        heads: Output of head training.
        labels: Label table: path or s3:// address.
        out: Folder for the results.
        params: Of these only ``compute.device``, ``threads`` and ``images`` are used, and what is stated where the
            models record nothing. A stated value that contradicts what they were made with is refused.
        settings: Where object storage is.

    Returns:
        For each head ``<alignment>_accuracy_field``, ``_accuracy_well``, ``_macro_f1_field``, ``_macro_f1_well``, and
        ``fields``, ``wells``.

    Raises:
        ConfigError: No head is there, or no held-out field has a label that the heads know.
        ContractError: The label table cannot be used.
        IntegrityError: A network or stored fields are not the recorded ones.
    """
    today = Today.of(params)
    extractor = load_extractor(pretrained / "extractor")
    found = {folder: load_head(folder) for folder in _head_folders(heads)}
    serving, split = _made_with(pretrained / "extractor", extractor, found, today)
    set_threads(serving.compute)
    batches = ingested_batches(dataset, DataStore(settings))
    tell([*serving.notes, *require_fitting(batches, extractor, str(pretrained / "extractor"))])
    stored = open_fields(batches, extractor.channels, serving.crops.centre)
    fields = read_fields(stored.take(held_out_fields(stored.table, split)))
    table = read_labels(read_file(labels, settings), labels, built=is_built(labels, settings))
    read: dict[str, Tensor] = {}
    groups = serving.alignment
    names = group_names(fields.table, groups.by)
    numbers: dict[str, float] = {}
    out.mkdir(parents=True, exist_ok=True)
    for folder, head in found.items():
        truth = _truth(folder, table, fields.table)
        front = front_of(extractor, head)
        kind = type(front).__name__
        if kind not in read:
            read[kind] = (
                extract_profiles(front, fields)
                if isinstance(front, Profile)
                else extract_tokens(front, fields, serving)
            )
        aligned = tokens = read[kind]
        if head.alignment == "standardise":
            source = load_source_statistics(folder)
            statistics = group_statistics(tokens, fields.table, by=groups.by, wells=groups.wells)
            aligned = standardise_groups(tokens, names, {name: own.like(source) for name, own in statistics.items()})
        probabilities = field_probabilities(head, aligned, serving)
        _keep(out / f"{folder.name}.parquet", fields.table, probabilities, head.classes)
        numbers |= {
            f"{folder.name}_{name}": value for name, value in _scores(probabilities, truth, fields.table).items()
        }
        numbers |= _sizes(truth, fields.table)
    (out / "metrics.json").write_text(json.dumps(numbers, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return numbers


def _made_with(
    where: Path, extractor: Extractor, heads: Mapping[Path, Head | ClassicalHead], today: Today
) -> tuple[Serving, Split]:
    """Return how the models are served, and what was held out of their training."""
    models = [(str(where), extractor.config), *((str(folder), head.config) for folder, head in heads.items())]
    facts = facts_of(models)
    tell(set_aside(facts, today))
    # no table of this step marks an answer as uncertain
    serving = serving_of(facts, extractor, today, [path for path in NEEDED if path != LEAST])
    held = joined(*(split_facts(config, name) for name, config in models))
    values, notes = told(held, today, [f"split.{name}" for name in Split.model_fields])
    tell(notes)
    return serving, Split.model_validate({path.removeprefix("split."): value for path, value in values.items()})


def _head_folders(heads: Path) -> list[Path]:
    folders = sorted(path.parent for path in heads.glob(f"*/{artifact.DIGESTS}"))
    if not folders:
        problem = Problem(str(heads), "no model folder", "one for each alignment", "Give the output of train_head.")
        raise ConfigError("There is no head to evaluate.", [problem])
    return folders


def _truth(folder: Path, table: LabelList, fields: pd.DataFrame) -> NDArray[np.int64]:
    """Class of every field by the head's own order; -1 without a label, or with a mechanism the head does not know."""
    frozen = json.loads(artifact.extra_file(folder, LABELS))
    known = {name: moa for name, moa in table.compounds.items() if moa in frozen["classes"]}
    codes = LabelList(known).codes(fields)
    own = np.array([frozen["classes"].index(name) for name in LabelList(known).classes] or [-1], dtype=np.int64)
    result: NDArray[np.int64] = np.where(codes >= 0, own[codes], -1)
    if (result < 0).all():
        remedy = "Give the label table that the heads were trained with."
        raise ConfigError(
            "Nothing can be measured.", [Problem("held-out batches", "no labelled field", "labelled fields", remedy)]
        )
    return result


def _scores(probabilities: NDArray[np.float32], truth: NDArray[np.int64], table: pd.DataFrame) -> dict[str, float]:
    known = truth >= 0
    wells, means = well_features(table.assign(_truth=truth)[known], probabilities[known])
    by_well = wells["_truth"].to_numpy(np.int64)
    return {
        "accuracy_field": accuracy(probabilities, truth).value,
        "macro_f1_field": macro_f1(probabilities, truth).value,
        "accuracy_well": accuracy(means, by_well).value,
        "macro_f1_well": macro_f1(means, by_well).value,
    }


def _sizes(truth: NDArray[np.int64], table: pd.DataFrame) -> dict[str, float]:
    rows = table[truth >= 0]
    wells = rows[["Metadata_Source", "Metadata_Batch", "Metadata_Plate", "Metadata_Well"]].drop_duplicates()
    return {"fields": float(len(rows)), "wells": float(len(wells))}


def _keep(path: Path, table: pd.DataFrame, probabilities: NDArray[np.float32], classes: tuple[str, ...]) -> None:
    kept = table[["image_id", *METADATA_COLUMNS.values()]].copy()
    for number, name in enumerate(classes):
        kept[f"p_{name}"] = probabilities[:, number]
    kept.to_parquet(path, index=False)
