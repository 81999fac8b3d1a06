"""Step: judge the quality of every batch of a dataset, and take out what must not be used."""

from pathlib import Path

from coda.config.params import Params
from coda.contracts.fingerprints import StainFingerprints
from coda.contracts.quality import QualityReport
from coda.errors import ConfigError, ContractError, Problem
from coda.plates.batch_files import LargerFileError, OutsideBatchError
from coda.quality.batch_quality import DOCS, accepted_indexes, batch_folders, read_report, validate_batch
from coda.quality.fingerprints import FINGERPRINTS
from coda.quality.red_flags import RedFlags, read_red_flags
from coda.settings import Settings
from coda.steps.ingest import files_of

MAX_LIST_BYTES = 64 * 2**20
"""A red-flag list above this size is refused unread."""


def validate(dataset: Path, *, params: Params, settings: Settings, history: Path | None = None) -> list[QualityReport]:
    """Judge each batch of a dataset folder; write ``quality.json`` and Data Docs, and leave accepted plates only.

    A refused batch is a result, not an error. The step may be repeated: it judges what ingest wrote and comes to the
    same report, and a delivery that was refused once stays refused.

    Args:
        dataset: Dataset folder from ingest.
        params: Parameters; `quality` is used, with the red-flag list that it names.
        settings: Where Data Docs are kept (`data_docs`); by default in each batch folder.
        history: Dataset folder with earlier accepted batches, and what the stains of the model's plates look like; may
            be missing or empty.

    Returns:
        One report a batch, by source and batch name.

    Raises:
        ContractError: The dataset holds no batch, or one without a finished ingest; or what is known of the stains
            cannot be read.
        ConfigError: The suite or the red-flag list cannot be used.
        TransientError: The object storage that holds the red-flag list is away.
    """
    folders = batch_folders(dataset)
    if not folders:
        problem = Problem(str(dataset), "no batch", "<source>/<batch>/manifest.json", "Run ingest into this folder.")
        raise ContractError("There is nothing to validate.", [problem])
    flags = _red_flags(params.quality.red_flags, settings)
    known = history / FINGERPRINTS if history is not None else None
    stains = StainFingerprints.read(known) if known is not None and known.is_file() else None
    reports = []
    for folder in folders:
        source, batch = folder.parent.name, folder.name
        earlier = accepted_indexes(history, source, besides=[batch])
        archived = {str(index["Metadata_Batch"].iloc[0]) for index in earlier}
        beside = accepted_indexes(dataset, source, besides=[batch, *archived])
        docs = Path(settings.data_docs) / source / batch if settings.data_docs else folder / DOCS
        report = validate_batch(
            folder, params.quality, history=earlier, others=[*earlier, *beside], docs=docs, red_flags=flags,
            stains=stains,
        )  # fmt: skip
        reports.append(report)
    return reports


def _red_flags(place: str, settings: Settings) -> RedFlags | None:
    """Read the operator's list of plates with known faults, from a file or from object storage."""
    if not place:
        return None
    files, name = files_of(place, settings)
    try:
        data = files.read(name, at_most=MAX_LIST_BYTES)
    except (FileNotFoundError, OutsideBatchError, LargerFileError) as error:
        found = f"{error.size_bytes} bytes" if isinstance(error, LargerFileError) else "no such file"
        expected = f"a CSV file of at most {MAX_LIST_BYTES // 2**20} MiB"
        problem = Problem(f"quality.red_flags: {place}", found, expected, "Correct the path, or leave it empty ('').")
        raise ConfigError("The red-flag list cannot be read.", [problem]) from error
    return read_red_flags(data, place)


def verdict(dataset: Path) -> str:
    """Return 'accepted' when at least one batch of a validated dataset may be used, else 'refused'.

    Raises:
        ContractError: A batch was not validated yet.
    """
    folders = batch_folders(dataset)
    reports = [read_report(folder) for folder in folders]
    problems = [
        Problem(str(folder), "no quality.json", "the report of the validation step", "Run validate first.")
        for folder, report in zip(folders, reports, strict=True)
        if report is None
    ]
    if problems or not folders:
        raise ContractError("There is no verdict yet.", problems)
    return "accepted" if any(report is not None and not report.refused for report in reports) else "refused"
