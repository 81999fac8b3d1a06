"""Embeddings before and after adaptation, each well one point."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from coda.evaluation.predictions.prediction_levels import well_features
from coda.evaluation.predictions.stored_matrix import Rows
from coda.monitoring.report.data_uris import COLOURS, GREY, MARKERS, Picture, figure, from_figure, style

WORDS = {"before": "Before adaptation", "after": "After adaptation", "served": "As served"}
MOST = 8


def principal_plane(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return each row's place on the two directions of largest variance, and the share of variance they hold.

    Args:
        features: Shape (wells, width).

    Returns:
        Shape (wells, 2), signs fixed so that the same features give the same picture; and a share, 0 to 1.
    """
    x = features - features.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    places = np.zeros((len(x), 2))
    kept = min(2, len(s))
    places[:, :kept] = u[:, :kept] * s[:kept]
    largest = np.abs(places).argmax(axis=0)
    signs = np.sign(places[largest, [0, 1]])
    total = float((s**2).sum())
    return places * np.where(signs == 0, 1, signs), float((s[:2] ** 2).sum() / total) if total > 0 else 0.0


def draw_embeddings(features: Mapping[str, Rows], fields: pd.DataFrame, chosen: str = "") -> Picture | None:
    """Draw wells before and after adaptation, coloured by batch (or plate) and by treatment.

    Args:
        features: 'before', 'after' and 'served' -> features, shape (fields, width); any may be absent.
        fields: Rows of the field index, in the order of the features.
        chosen: Name of the way that is served.

    Returns:
        A row for each set of features, or None when there are fewer than three wells or no features.
    """
    sets = [(when, features[when]) for when in WORDS if when in features]
    if not sets or fields[["Metadata_Plate", "Metadata_Well"]].drop_duplicates().shape[0] < 3:
        return None
    with style():
        drawn = figure(9.6, 3.3 * len(sets))
        grid = drawn.subplots(len(sets), 2, squeeze=False)
        words = []
        for row, (when, matrix) in enumerate(sets):
            wells, x = well_features(fields.reset_index(drop=True), matrix)
            places, share = principal_plane(x)
            group, groups = group_names(wells)
            title = WORDS[when] + (f" ({chosen})" if when == "served" and chosen else "")
            _scatter(grid[row][0], places, groups, f"{title}, by {group}", last=row == len(sets) - 1)
            treatments = treatment_names(wells)
            _scatter(grid[row][1], places, treatments, f"{title}, by compound", last=row == len(sets) - 1)
            grid[row][0].set_ylabel(f"2nd direction ({share:.0%} of variance in both)")
            words.append(f"{WORDS[when].lower()}, the two directions hold {share:.0%} of the variance")
        return from_figure(
            drawn, f"Wells placed by their features, once by {group}, once by compound; {'; '.join(words)}"
        )


def group_names(wells: pd.DataFrame) -> tuple[str, list[str]]:
    """Return what wells are grouped by ('batch', or 'plate' when there is one batch) and each well's group."""
    batch = (wells["Metadata_Source"].astype(str) + "/" + wells["Metadata_Batch"].astype(str)).tolist()
    if len(set(batch)) > 1:
        return "batch", batch
    return "plate", wells["Metadata_Plate"].astype(str).tolist()


def treatment_names(wells: pd.DataFrame) -> list[str]:
    """Return the compound of each well; negative controls under one name."""
    negcon = (wells["Metadata_pert_type"] == "negcon").to_numpy()
    compounds = wells["Metadata_Compound"].astype(str).tolist()
    return ["negative control" if control else name for control, name in zip(negcon, compounds, strict=True)]


def _scatter(axis: Axes, places: NDArray[np.float64], names: list[str], title: str, *, last: bool) -> None:
    labels = np.asarray(names, dtype=str)
    distinct, counts = np.unique(labels, return_counts=True)
    order = [str(name) for name in distinct[np.argsort(-counts, kind="stable")]]
    controls = [name for name in order if name == "negative control"]
    shown = (
        [name for name in order if name not in controls][: MOST - len(controls)]
        if len(order) > MOST
        else [name for name in order if name not in controls]
    )
    rest = ~np.isin(labels, [*shown, *controls])
    if rest.any():
        axis.scatter(
            places[rest, 0],
            places[rest, 1],
            s=14,
            c=GREY,
            linewidths=0,
            label=f"{len(order) - len(shown)} others",
            alpha=0.7,
        )
    if controls:
        held = places[labels == controls[0]]
        axis.scatter(held[:, 0], held[:, 1], s=20, c="black", marker="+", linewidths=0.9, label=controls[0])
    for k, name in enumerate(sorted(shown)):
        held = places[labels == name]
        axis.scatter(
            held[:, 0], held[:, 1], s=22, c=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)],
            linewidths=0, alpha=0.85, label=name,
        )  # fmt: skip
    axis.set_title(title, loc="left")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel("1st direction" if last else "")
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
