"""Answers that adaptation gave already: taken over for a release of the same models, if a drawn sample proves them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter
from safetensors import SafetensorError

from coda.adaptation.candidates import Candidate, read_candidates
from coda.adaptation.folder import read_served_as, statistics_folder
from coda.adaptation.serving import Way, serve
from coda.config.served_params import ServedAs
from coda.contracts.base import Digest, digest_of_json
from coda.contracts.documents import document_at
from coda.contracts.release import ReleaseRecord
from coda.errors import IntegrityError, Problem
from coda.evaluation.predictions.prediction_levels import PREFIX
from coda.networks.alignment import TokenStatistics
from coda.networks.extractor import Extractor
from coda.networks.profile import Profile
from coda.plates.stored import Fields, StoredFields
from coda.training.split import group_names

ANSWERED = "answered.json"
"""File of the candidates folder: which fields of the batch the candidates' answers are about."""

PROVEN, LEAST_PROVEN = 1 / 64, 8
"""Share of each plate's fields that are predicted anew, and how many at least."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}
"""Largest difference of a probability that rounding explains: other cores, other kernels, other sizes of a batch."""

_REMEDY = "Run the adaptation again."


class _Answered(BaseModel):
    fields: Digest


@dataclass(frozen=True)
class Answers:
    """What one candidate answered for every field of a batch.

    Attributes:
        candidate: Its name.
        probabilities: Shape (fields, classes).
        statistics: Group -> token statistics that its tokens were aligned with; empty without an alignment.
    """

    candidate: str
    probabilities: NDArray[np.float32]
    statistics: Mapping[str, TokenStatistics]


def fields_digest(stored: StoredFields) -> str:
    """Return the digest of which fields these are, pixels included, in their order."""
    return digest_of_json([[place.image_id, place.sha256] for place in stored.places])


def write_answered(out: Path, batch: StoredFields) -> None:
    """Write ``answered.json`` into a candidates folder: the fields of the batch, by digest."""
    (out / ANSWERED).write_text(_Answered(fields=fields_digest(batch)).model_dump_json() + "\n", encoding="utf-8")


def answers_for(
    candidates: Path, record: ReleaseRecord, classes: tuple[str, ...], stored: StoredFields, params: ServedAs
) -> Answers | None:
    """Return what a candidate answered that had a release's very extractor, head and alignment, for these very fields.

    Args:
        candidates: Candidates folder of the run's adaptation.
        record: The release.
        classes: Classes of its head.
        stored: Fields to predict.
        params: How the release is served; alignments must have been fitted on the same groups.

    Returns:
        None where there is no such candidate: the fields have to be predicted.

    Raises:
        IntegrityError: The folder is not whole.
    """
    found = next((item for item in read_candidates(candidates) if _binds(item, record)), None)
    path = candidates / ANSWERED
    if found is None or not path.is_file():
        return None
    answered = document_at(path, TypeAdapter(_Answered), expected="which fields were answered", remedy=_REMEDY)
    made = read_served_as(candidates)
    groups = {"alignment.by": params.alignment.by, "alignment.wells": params.alignment.wells}
    if answered.fields != fields_digest(stored) or any(
        path not in made or made[path].value != value for path, value in groups.items()
    ):
        return None
    folder = candidates / found.name
    try:
        table = pd.read_parquet(folder / "predictions.parquet")
        names = [name for name in table.columns if name.startswith(PREFIX)]
        if names != [PREFIX + name for name in classes] or list(table["image_id"]) != list(stored.table["image_id"]):
            return None
        probabilities = table[names].to_numpy(dtype=np.float32)
        aligned = found.alignment != "none"
        statistics = _statistics(statistics_folder(candidates, found.extractor)) if aligned else {}
        return Answers(found.name, probabilities, statistics)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        problem = Problem(str(folder), str(error).partition("\n")[0][:200], "answers for every field", _REMEDY)
        raise IntegrityError(f"The answers of candidate {found.name} are not whole.", [problem]) from error


def _binds(candidate: Candidate, record: ReleaseRecord) -> bool:
    # the incumbent's own extractor is served as its own record says, which is not written down in the folder
    return (
        candidate.extractor != "incumbent"
        and candidate.extractor_digest == record.extractor.digest
        and candidate.head_digest == record.head.digest
        and candidate.alignment == record.alignment
    )


def _statistics(folder: Path) -> dict[str, TokenStatistics]:
    if not folder.is_dir():
        return {}
    names = document_at(
        folder / "groups.json", TypeAdapter(dict[str, str]), expected="groups and their files", remedy=_REMEDY
    )
    return {group: TokenStatistics.from_bytes((folder / Path(name).name).read_bytes()) for group, name in names.items()}


def drawn(table: pd.DataFrame, seed: str) -> NDArray[np.intp]:
    """Return the rows to prove, in order: of each plate one in 64, at least 8."""
    random = np.random.default_rng(int(digest_of_json(seed)[:16], 16))
    plates = group_names(table, "plate")
    rows = []
    for plate in np.unique(plates):
        own = np.flatnonzero(plates == plate)
        rows.append(random.choice(own, min(len(own), max(LEAST_PROVEN, round(len(own) * PROVEN))), replace=False))
    return cast(NDArray[np.intp], np.sort(np.concatenate(rows)))


def differ_by(
    answers: Answers, extractor: Extractor | Profile, way: Way, fields: Fields, rows: NDArray[np.intp], params: ServedAs
) -> float:
    """Return the largest difference between answers and what the registered models answer for a sample.

    Args:
        answers: What adaptation answered, for all fields.
        extractor: The release's, from the registry; the profile for a classical head.
        way: Its head and alignment, likewise.
        fields: The sample.
        rows: Which of all fields it is.
        params: How the release is served.

    Returns:
        0 to 1; infinite where answers are no numbers or a group has no statistics.
    """
    groups = set(group_names(fields.table, params.alignment.by))
    if way.alignment != "none" and not groups <= set(answers.statistics):
        return float("inf")
    again = serve(extractor, [way], fields, params, statistics=answers.statistics).ways[way.name]
    worst = np.abs(again.probabilities - answers.probabilities[rows]).max()
    return float(worst) if np.isfinite(worst) else float("inf")
