"""What changed: a batch's fields against those of earlier accepted batches, kept beside the candidates.

It is done here because here are both: the archive's fields are at hand with their numbers, embeddings before adaptation
and pixels, of which a few are kept for people to see.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.contracts.changed import Pair, Place, PlateTold, ToldApart, WhatChanged
from coda.evaluation.metrics.two_sample import FEWEST_EARLIER, FEWEST_WELLS, Compared, compare
from coda.evaluation.predictions.stored_matrix import Rows, stored_matrix
from coda.plates.dataset import BatchFolder
from coda.plates.fieldset import FieldSet
from coda.plates.stored import Fields
from coda.quality.stats import QC_PREFIX, STATISTICS, channel_of
from coda.training.split import batch_names, group_names

PAIRS, SIDE_PX = 6, 192

COMPONENTS = 32
"""Directions of largest variance that stand for the embedding."""

MOST_ROWS = 4096
"""Fields that these directions are taken from."""


def write_changed(
    out: Path,
    batches: Sequence[BatchFolder],
    earlier: Sequence[BatchFolder],
    fields: Fields,
    chosen: NDArray[np.bool_],
    *,
    features: Path,
) -> WhatChanged:
    """Compare a batch with its archive; write ``changed.json`` beside the candidates, ``changed.npz`` beside features.

    The latter holds the pairs of typical fields: ``images``, uint16, shape (pairs, 2, stains, height, width).

    Args:
        out: Candidates folder.
        batches: What was adapted to; of several batches the last one is compared, which the gate reports on, too.
        earlier: The archive.
        fields: Fields of both.
        chosen: Which accepted fields of these folders, one after the other, they are.
        features: Folder of features, with ``features_base.npy``.
    """
    numbers = statistics_of([*batches, *earlier], fields.channels).loc[chosen].reset_index(drop=True)
    told = what_changed(batches[-1], earlier, fields.table, numbers, stored_matrix(features / "features_base.npy"))
    told = told.model_copy(update={"channels": tuple(fields.channels)})
    pictures = features / WhatChanged.PICTURES
    pictures.unlink(missing_ok=True)  # an earlier attempt's
    if told.pairs:
        np.savez_compressed(pictures, images=_pictures(told, fields, numbers))
    told.write(out / WhatChanged.NAME)
    return told


def statistics_of(batches: Sequence[BatchFolder], channels: Sequence[str]) -> pd.DataFrame:
    """Return the quality statistics of raw images, of the stains that are read; accepted fields of all batches."""
    wanted = [f"{QC_PREFIX}{statistic}_{stain}" for stain in channels for statistic in STATISTICS]
    tables = [batch.accepted.reindex(columns=wanted) for batch in batches]
    return pd.concat(tables, ignore_index=True).astype(np.float64)


def what_changed(
    batch: BatchFolder, archive: Sequence[BatchFolder], table: pd.DataFrame, numbers: pd.DataFrame, embedding: Rows
) -> WhatChanged:
    """Return which stains, plates and wells tell a batch from earlier ones of the same microscope.

    Args:
        batch: The batch.
        archive: Earlier accepted batches of its source.
        table: One row a field, with the columns of the field index that name it.
        numbers: Quality statistics of each field.
        embedding: What the extractor sees before adaptation, a row a field.
    """
    own = batch.manifest
    facts: dict[str, Any] = {"source": own.source, "batch": own.batch, "instrument": own.instrument.name}
    names = batch_names(table)
    present = set(names.tolist())
    earlier = [item for item in archive if item.batch_id in present]
    alike = [item.batch_id for item in earlier if item.manifest.instrument.name == own.instrument.name]
    if not alike:
        before = "an accepted batch of this microscope" if earlier else "an accepted batch of this source"
        why = f"There is no earlier field to compare with: the archive holds no field of {before}. "
        return WhatChanged(**facts, why_not=why + "How far the batch lies from the training source is under drift.")
    facts["against"] = tuple(name.partition("/")[2] for name in alike)
    wells = group_names(table, "well")
    mine = names == batch.batch_id
    rows, treatments = _comparable(table, wells, mine, mine | np.isin(names, alike))
    groups = _features(numbers[rows], embedding, np.flatnonzero(rows))
    whole = compare(np.concatenate(list(groups.values()), axis=1), names[rows], wells[rows], batch.batch_id)
    if whole is None:
        why = f"Fewer than {FEWEST_WELLS} wells of the batch or of earlier ones can be compared."
        return WhatChanged(**facts, why_not=why)
    score = np.full(len(table), np.nan)
    score[rows] = whole.told.score
    parts = [(by, compare(x, names[rows], wells[rows], batch.batch_id)) for by, x in groups.items()]
    few = f"{len(whole.earlier)} of {FEWEST_EARLIER} earlier batches that are needed to say what is usual."
    compared = mine & np.isfinite(score)
    return WhatChanged(
        **facts,
        why_not="" if len(whole.earlier) >= FEWEST_EARLIER else few,
        wells=len(np.unique(wells[compared])),
        fields=int(compared.sum()),
        treatments=treatments,
        whole=_told("all", whole),
        parts=tuple(_told(by, part) for by, part in parts if part is not None),
        plates=_plates(table[compared], score[compared]),
        pairs=_pairs(table, compared, ~mine & np.isfinite(score), score),
    )


def _comparable(
    table: pd.DataFrame, wells: NDArray[np.str_], mine: NDArray[np.bool_], rows: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], int | None]:
    """Return which fields are compared: of treatments that both sides have, where these have wells enough."""
    treatments = table["Metadata_Treatment"].astype(str).to_numpy()
    both = set(treatments[mine]) & set(treatments[rows & ~mine])
    shared = rows & np.isin(treatments, sorted(both))
    if min(len(np.unique(wells[shared & side])) for side in (mine, ~mine)) >= FEWEST_WELLS:
        return shared, len(both)
    return rows, None


def _features(numbers: pd.DataFrame, embedding: Rows, rows: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of each stain, and the embedding in few directions; what is not known is the median."""
    found: dict[str, NDArray[np.float64]] = {}
    known = numbers.replace([np.inf, -np.inf], np.nan).dropna(axis=1, how="all")
    known = known.fillna(known.median())
    stains = [(channel_of(str(name)) or ("", ""))[1] for name in known.columns]
    for stain in dict.fromkeys(stains):
        found[stain] = known[[name for name, own in zip(known.columns, stains, strict=True) if own == stain]].to_numpy()
    found["embedding"] = _directions(embedding, rows)
    return found


def _directions(embedding: Rows, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return rows of a matrix in its directions of largest variance, which few of them tell."""
    sample = rows[:: max(1, len(rows) // MOST_ROWS)]
    whole = np.asarray(embedding[0 : len(embedding)])
    seen = whole[sample].astype(np.float64)
    centre, spread = seen.mean(axis=0), seen.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    _, axes = np.linalg.eigh(np.cov((seen - centre) / scale, rowvar=False).reshape(seen.shape[1], -1))
    axes = axes[:, ::-1][:, :COMPONENTS]
    return np.asarray(((whole[rows] - centre) / scale) @ axes, dtype=np.float64)


def _told(by: str, found: Compared) -> ToldApart:
    return ToldApart(
        by=by,
        accuracy=found.told.accuracy,
        separation=found.told.separation,
        earlier=found.earlier,
        p_value=found.p_value if np.isfinite(found.p_value) else None,
    )


def _plates(table: pd.DataFrame, score: NDArray[np.float64]) -> tuple[PlateTold, ...]:
    """Return the plates of the batch, the most different first."""
    rows = table[["Metadata_Plate", "Metadata_Well"]].assign(score=score)
    plates = [
        PlateTold(
            plate=str(plate),
            told=float((mine["score"] > 0.5).mean()),
            score=float(mine["score"].mean()),
            fields=len(mine),
            wells={str(well): round(float(p), 3) for well, p in mine.groupby("Metadata_Well")["score"].mean().items()},
        )
        for plate, mine in rows.groupby("Metadata_Plate")
    ]
    return tuple(sorted(plates, key=lambda item: (-item.score, item.plate)))


def _pairs(
    table: pd.DataFrame, now: NDArray[np.bool_], before: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[Pair, ...]:
    """Return fields most typical of the batch, of a treatment and well each, and of before, of the same treatments."""
    treatments = table["Metadata_Treatment"].astype(str).to_numpy()
    earlier = np.flatnonzero(before)
    earlier = earlier[np.argsort(score[earlier], kind="stable")]
    first = {treatment: int(row) for row, treatment in zip(earlier[::-1], treatments[earlier[::-1]], strict=True)}
    later = np.flatnonzero(now)
    pairs: list[Pair] = []
    for row in later[np.argsort(-score[later], kind="stable")].tolist():
        other = first.pop(treatments[row], None)
        if other is not None:
            places = [_place(table, at, float(score[at])) for at in (row, other)]
            pairs.append(Pair(treatment=treatments[row], now=places[0], before=places[1]))
        if len(pairs) == PAIRS:
            break
    return tuple(pairs)


def _place(table: pd.DataFrame, row: int, score: float) -> Place:
    batch, plate, well, site = (table[f"Metadata_{name}"].iloc[row] for name in ("Batch", "Plate", "Well", "Site"))
    return Place(batch=str(batch), plate=str(plate), well=str(well), site=int(site), score=score)


def _pictures(told: WhatChanged, fields: Fields, numbers: pd.DataFrame) -> NDArray[np.uint16]:
    """Return the pairs as they were recorded: stored images are stretched each by itself, which hides the lamp."""
    columns = [f"Metadata_{name}" for name in ("Batch", "Plate", "Well", "Site")]
    at = {key: row for row, key in enumerate(fields.table[columns].itertuples(index=False, name=None))}
    places = [place for pair in told.pairs for place in (pair.now, pair.before)]
    rows = [at[place.batch, place.plate, place.well, place.site] for place in places]
    taken = fields.take(np.array(rows, dtype=np.intp))
    images = taken.images if isinstance(taken, FieldSet) else taken.read(range(len(rows)), threads=taken.readers)
    pictures = [
        _recorded(_reduced(image), fields.channels, numbers.iloc[row]) for image, row in zip(images, rows, strict=True)
    ]
    return np.stack(pictures).reshape(len(told.pairs), 2, *pictures[0].shape)


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return an image of at most `SIDE_PX` a side: means of blocks of pixels."""
    factor = -(-max(image.shape[1:]) // SIDE_PX)
    height, width = (side // factor for side in image.shape[1:])
    blocks = image[:, : height * factor, : width * factor].reshape(-1, height, factor, width, factor)
    return np.asarray(blocks.mean(axis=(2, 4)))


def _recorded(image: NDArray[np.float64], channels: Sequence[str], numbers: "pd.Series[Any]") -> NDArray[np.uint16]:
    """Return stored stains as bright as the camera recorded them, by the statistics of dark and bright parts."""
    found = np.zeros(image.shape)
    for plane, stain, stored in zip(found, channels, image, strict=True):
        raw = np.array([numbers[f"{QC_PREFIX}{name}_{stain}"] for name in ("p5", "p95")])
        now = np.percentile(stored, [5, 95])
        known = np.isfinite(raw).all() and now[1] > now[0]
        plane[:] = raw[0] + (stored - now[0]) * (raw[1] - raw[0]) / (now[1] - now[0]) if known else stored
    return np.asarray(np.clip(np.rint(found), 0, np.iinfo(np.uint16).max), dtype=np.uint16)
