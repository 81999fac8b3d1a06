"""Versioning: accepted batches go to the data registry; the run carries their revision and digest from here on."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from coda.config.params import Params
from coda.contracts import DataRevision
from coda.durable import give_name
from coda.errors import ContractError, IntegrityError, Problem
from coda.plates.dataset import BatchFolder, open_batches
from coda.settings import Settings
from coda.storage.data_registry import BatchToCommit, commit_batches


def version(dataset: Path, out: Path, *, params: Params, settings: Settings, run_id: str) -> list[DataRevision]:
    """Put every batch that validation did not refuse into the data registry, each content once.

    Returns:
        One revision for each batch that was not refused, by source and batch.

    Raises:
        ContractError: There is no such batch.
        TransientError: Git or the object store does not answer; repeating the step is safe.
    """
    del params
    usable = accepted_batches(dataset)
    if not usable:
        problem = Problem(str(dataset), "no accepted batch", "at least one", "Read the quality reports of the batches.")
        raise ContractError("There is nothing to version.", [problem])
    batches = [BatchToCommit(item.manifest.source, item.manifest.batch, item.path) for item in usable]
    out.parent.mkdir(parents=True, exist_ok=True)
    revisions = commit_batches(batches, settings=settings, run_id=run_id)
    write_revisions(out, revisions)
    return revisions


def accepted_batches(dataset: Path) -> list[BatchFolder]:
    """Return the batches of a dataset folder that validation did not refuse."""
    return [item for item in open_batches(dataset) if item.quality is None or not item.quality.refused]


def write_revisions(path: Path, revisions: Sequence[DataRevision]) -> Path:
    """Write revisions as a JSON list, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps([item.model_dump(mode="json") for item in revisions], indent=2) + "\n")
    give_name(draft, path)
    return path


def read_revisions(path: Path) -> tuple[DataRevision, ...]:
    """Read what `write_revisions` wrote.

    Raises:
        IntegrityError: The file is missing or is no such list.
    """
    try:
        return tuple(TypeAdapter(list[DataRevision]).validate_json(path.read_bytes()))
    except (FileNotFoundError, ValueError) as error:
        words = str(error).splitlines()[0]
        problem = Problem(str(path), words, "the revisions of the batches", "Run the version step again.")
        raise IntegrityError("The data revisions of this run cannot be read.", [problem]) from error
