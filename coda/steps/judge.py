"""Judge: the gate over the candidates of one batch. It reads predictions and features, never a label."""

from pathlib import Path

import numpy as np
import pandas as pd

from coda.adaptation.candidates import Candidate, read_candidates
from coda.adaptation.folder import pairing_remarks
from coda.config.params import Params
from coda.contracts.gate import GateReport
from coda.errors import ContractError, IntegrityError, Problem
from coda.evaluation.gate import BatchName, decide
from coda.evaluation.measures import CandidateMeasures, measure_candidate
from coda.plates.dataset import open_batches
from coda.settings import Settings


def judge(dataset: Path, candidates: Path, out: Path, *, params: Params, settings: Settings) -> GateReport:
    """Decide what serves a batch and write the GateReport.

    Args:
        dataset: Dataset folder with the batch the decision is about; where there are several, the report carries the
            name of the last.
        candidates: Candidates folder of the adaptation.
        out: File to write, ``gate.json``.
        params: The `gate` section holds the policy.
        settings: Not used: the gate needs no service.

    Raises:
        ContractError: The dataset holds no batch.
        IntegrityError: The candidates folder is not whole.
        ConfigError: The policy cannot be used.
    """
    del settings
    batches = open_batches(dataset)
    if not batches:
        problem = Problem(str(dataset), "no ingested batch", "at least one", "Run ingest first.")
        raise ContractError("There is nothing to judge.", [problem])
    rows = pd.read_parquet(candidates / "fields.parquet")
    measured = [_measured(candidate, candidates, rows, params) for candidate in read_candidates(candidates)]
    newest = batches[-1].manifest
    batch = BatchName(newest.source, newest.batch, newest.digest())
    decided = decide(measured, params.gate, batch, seed=params.seed)
    report = decided.model_copy(update={"advice": (*pairing_remarks(candidates), *decided.advice)})
    report.write(out)
    return report


def _measured(candidate: Candidate, folder: Path, rows: pd.DataFrame, params: Params) -> CandidateMeasures:
    own = folder / candidate.name
    try:
        parts = [
            pd.read_parquet(path)
            for path in (own / "predictions.parquet", own / "archive_predictions.parquet")
            if path.is_file()
        ]
        table = pd.concat(parts, ignore_index=True).set_index("image_id").loc[rows["image_id"]].reset_index()
        features = np.load(own / "features.npy", allow_pickle=False)
    except (KeyError, FileNotFoundError, ValueError) as error:
        problem = Problem(str(own), str(error).splitlines()[0], "answers for every field", "Run the adaptation again.")
        raise IntegrityError(f"The answers of candidate {candidate.name} are not whole.", [problem]) from error
    return measure_candidate(
        candidate.name,
        table,
        features,
        complexity=candidate.complexity,
        samples=params.gate.bootstrap,
        seed=params.seed,
        alarms=candidate.alarms,
        incumbent=candidate.incumbent,
    )
