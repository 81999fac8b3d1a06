"""Judge: the gate over the candidates of one batch. It reads predictions and features, never a label."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.adaptation.candidates import Candidate, read_candidates
from coda.adaptation.folder import pairing_remarks, read_features, read_served_as
from coda.adaptation.references import read_reference
from coda.config.params import Params
from coda.config.recorded import Today, refuse_contradictions
from coda.contracts.gate import GateReport
from coda.errors import ContractError, IntegrityError, Problem
from coda.evaluation.gate.decide import BatchName, decide
from coda.evaluation.gate.definitions import evidence_of
from coda.evaluation.gate.measures import CandidateMeasures, measure_candidate
from coda.evaluation.gate.untrained_features import ReferenceMeasures, measure_reference
from coda.plates.dataset import open_batches
from coda.settings import Settings
from coda.training.split import group_names


def judge(
    dataset: Path, candidates: Path, out: Path, *, params: Params, settings: Settings, features: Path | None = None
) -> GateReport:
    """Decide what serves a batch and write the GateReport.

    Args:
        dataset: Dataset folder with the batch the decision is about; where there are several, the report carries the
            name of the last.
        candidates: Candidates folder of the adaptation.
        out: File to write, ``gate.json``.
        params: The `gate` section holds the policy; `alignment` says what alignments were fitted on.
        settings: Not used: the gate needs no service.
        features: Folder of their features; `candidates` when not given.

    Raises:
        ContractError: The dataset holds no batch.
        IntegrityError: The candidates folder is not whole.
        ConfigError: The policy cannot be used, or the parameters contradict what the candidates were served with.
    """
    del settings
    features = features or candidates
    batches = open_batches(dataset)
    if not batches:
        problem = Problem(str(dataset), "no ingested batch", "at least one", "Run ingest first.")
        raise ContractError("There is nothing to judge.", [problem])
    rows = pd.read_parquet(candidates / "fields.parquet")
    offered = read_candidates(candidates)
    refuse_contradictions(read_served_as(candidates), Today.of(params))
    policy, samples = params.gate.policy, params.gate.bootstrap
    before = next((_features(item, features) for item in offered if item.name == policy.baseline), None)
    measured = [_measured(item, candidates, rows, _features(item, features), before, params) for item in offered]
    newest = batches[-1].manifest
    batch = BatchName(newest.source, newest.batch, newest.digest())
    decided = decide(
        measured,
        policy,
        batch,
        seed=params.seed,
        samples=samples,
        references=_references(features, rows, params),
        pool=offered[0].pool if offered else "mean",
        evidence=evidence_of(rows, align_by=params.alignment.by, align_wells=params.alignment.wells),
    )
    report = decided.model_copy(update={"advice": (*pairing_remarks(candidates), *decided.advice)})
    report.write(out)
    return report


def _references(folder: Path, rows: pd.DataFrame, params: Params) -> list[ReferenceMeasures]:
    """Measure the references that the policy compares with, standardised on the wells that alignments are fitted on."""
    groups = group_names(rows, params.alignment.by)
    fitted = np.ones(len(rows), dtype=bool)
    if params.alignment.wells == "negcon":
        fitted = (rows["Metadata_pert_type"] == "negcon").to_numpy()
    return [
        measure_reference(
            name, rows, read_reference(folder, name, len(rows)), groups, fitted,
            samples=params.gate.bootstrap, seed=params.seed,
        )
        for name in params.gate.policy.references
    ]  # fmt: skip


def _features(candidate: Candidate, folder: Path) -> NDArray[np.float32]:
    try:
        return read_features(folder, candidate)
    except (FileNotFoundError, ValueError) as error:
        raise _not_whole(candidate, folder, error) from error


def _not_whole(candidate: Candidate, folder: Path, error: Exception) -> IntegrityError:
    found = str(error).splitlines()[0]
    problem = Problem(str(folder), found, "answers for every field", "Run the adaptation again.")
    return IntegrityError(f"The answers of candidate {candidate.name} are not whole.", [problem])


def _measured(
    candidate: Candidate,
    folder: Path,
    rows: pd.DataFrame,
    features: NDArray[np.float32],
    before: NDArray[np.float32] | None,
    params: Params,
) -> CandidateMeasures:
    own = folder / candidate.name
    try:
        parts = [
            pd.read_parquet(path)
            for path in (own / "predictions.parquet", own / "archive_predictions.parquet")
            if path.is_file()
        ]
        table = pd.concat(parts, ignore_index=True).set_index("image_id").loc[rows["image_id"]].reset_index()
    except (KeyError, FileNotFoundError, ValueError) as error:
        raise _not_whole(candidate, own, error) from error
    return measure_candidate(
        candidate.name,
        table,
        features,
        complexity=candidate.complexity,
        samples=params.gate.bootstrap,
        seed=params.seed,
        baseline_features=before,
        alarms=candidate.alarms,
        incumbent=candidate.incumbent,
    )
