"""Figures of the benchmarks, in one style, drawn without a window."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

STYLE: Any = {"font.size": 9.0, "axes.titlesize": 10.0, "axes.spines.top": False, "axes.spines.right": False}

COLOURS = ("#b5bac1", "#e69f00", "#cc79a7", "#8c6d31", "#56b4e9", "#0072b2", "#009e73", "#d55e00", "#5b2a86")
"""Told apart with every common kind of colour blindness (after Okabe and Ito)."""


UNNAMED = "no label"
"""Name of points that have none."""


def canvas(width_in: float, height_in: float) -> Figure:
    """Return an empty figure of this size in inches that belongs to no window and no global state."""
    with rc_context(STYLE):
        return Figure(figsize=(width_in, height_in), layout="constrained")


def bars(scores: pd.DataFrame, source: str, targets: Sequence[str], systems: Sequence[str], *, chance: float) -> Figure:
    """Draw image accuracy as a bar for each system and target: the mean, with a dot for every seed.

    Args:
        scores: From `coda.benchmark.systems.score_table`; alignment 'none' is drawn.
        source: Source that was trained on; its in-domain score is the first group.
        targets: The other groups.
        systems: Bars of a group, in this order.
        chance: Accuracy of guessing, drawn as a line.
    """
    chosen = scores[
        (scores["source"] == source) & (scores["alignment"] == "none")
        & (scores["level"] == "image") & (scores["metric"] == "accuracy")
    ]  # fmt: skip
    groups = [source, *(target for target in targets if target != source)]
    figure, width = canvas(max(7.0, 2.2 * len(groups)), 3.6), 0.85 / len(systems)
    with rc_context(STYLE):
        axis = figure.subplots()
        for number, system in enumerate(systems):
            places, means = [], []
            for group, target in enumerate(groups):
                values = chosen[(chosen["system"] == system) & (chosen["target"] == target)]["value"].to_numpy() * 100
                if not len(values):
                    continue
                place = group + (number - (len(systems) - 1) / 2) * width
                places.append(place)
                means.append(values.mean())
                spread = np.linspace(-0.25, 0.25, len(values)) * width if len(values) > 1 else np.zeros(1)
                axis.plot(place + spread, values, "o", color="#1b2330", markersize=2.4, zorder=3)
            axis.bar(places, means, width=width * 0.92, color=COLOURS[number % len(COLOURS)], label=system)
        axis.axhline(100 * chance, color="#667085", linewidth=0.8, linestyle="--")
        axis.set_xticks(range(len(groups)), [f"{source}\n(in-domain)", *groups[1:]])
        axis.set_ylabel("accuracy over images (%)")
        axis.set_ylim(0, 100)
        figure.legend(loc="outside upper center", ncols=min(4, len(systems)), frameon=False)
    return figure


def heat_maps(
    maps: Sequence[tuple[str, NDArray[np.float64]]], names: Sequence[str], *, columns: int, labels: tuple[str, str]
) -> Figure:
    """Draw square matrices of numbers between 0 and 1 side by side, with one scale for all.

    Args:
        maps: (title, matrix) of each.
        names: Names of rows and columns alike.
        columns: Maps in a row.
        labels: What the vertical and the horizontal axis are.
    """
    rows = -(-len(maps) // columns)
    figure = canvas(3.4 * columns + 0.6, 3.2 * rows)
    with rc_context(STYLE):
        axes = figure.subplots(rows, columns, squeeze=False)
        image = None
        for axis, (title, matrix) in zip(axes.flat, maps, strict=False):
            image = axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis", origin="lower")
            axis.set_title(title, loc="left")
            axis.set_xticks(range(len(names)), names, rotation=90)
            axis.set_yticks(range(len(names)), names)
            axis.set_ylabel(labels[0])
            axis.set_xlabel(labels[1])
            written = np.argwhere(np.isfinite(matrix)) if len(names) <= 8 else ()
            for row, column in written:
                value = matrix[row, column]
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5,
                          color="white" if value < 0.6 else "#1b2330")  # fmt: skip
        if image is not None:
            figure.colorbar(image, ax=axes, shrink=0.7, label="linear CKA")
    return figure


def clouds(
    panels: Sequence[Sequence[tuple[str, NDArray[np.float64], Sequence[str]]]], *, legend: str, markersize: float = 3.0
) -> Figure:
    """Draw scatter plots in a grid, points coloured by a name.

    Args:
        panels: Rows of (title, coordinates of shape (points, 2), name of each point); `UNNAMED` is drawn in grey.
        legend: What the names are.
        markersize: Of a point.
    """
    names = sorted({name for row in panels for _, _, own in row for name in own} - {UNNAMED})
    looks = {
        name: (COLOURS[1 + k % (len(COLOURS) - 1)], "osv^D"[k // (len(COLOURS) - 1) % 5])
        for k, name in enumerate(names)
    }
    looks[UNNAMED] = (COLOURS[0], "o")
    figure = canvas(3.3 * len(panels[0]) + 1.6, 3.1 * len(panels))
    with rc_context(STYLE):
        axes = figure.subplots(len(panels), len(panels[0]), squeeze=False)
        for row, line in zip(axes, panels, strict=True):
            for axis, (title, places, own) in zip(row, line, strict=True):
                told = np.asarray(own)
                for name, (colour, marker) in looks.items():
                    held = places[told == name]
                    axis.plot(held[:, 0], held[:, 1], marker, color=colour, markersize=markersize, markeredgewidth=0,
                              label=name if len(held) else None, alpha=0.8)  # fmt: skip
                axis.set_title(title, loc="left")
                axis.set_xticks([])
                axis.set_yticks([])
        found: dict[str, Any] = {}
        for axis in axes.flat:
            handles, shown = axis.get_legend_handles_labels()
            found |= dict(zip(shown, handles, strict=True))
        order = [name for name in looks if name in found]
        figure.legend(
            [found[name] for name in order],
            order,
            title=legend,
            loc="outside right center",
            frameon=False,
            markerscale=2,
        )
    return figure
