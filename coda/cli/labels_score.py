"""`coda labels score`: how right predictions are, once labels are known."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from coda.benchmark.benchmark_report import write_json
from coda.benchmark.data import read_label_file
from coda.benchmark.labelled_batch import LabelledBatch, score_batch
from coda.cli.benchmark_options import place_for_numbers

SHOWN = 6
"""Compounds that are named; --json has all."""


def score(
    predictions: Annotated[Path, typer.Argument(help="Folder that coda predict wrote.")],
    labels: Annotated[Path, typer.Option(help="CSV with Metadata_Compound and moa.")],
    learned: Annotated[
        Path | None, typer.Option(help="Label table that the head was trained with: others are scored as unseen.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", callback=place_for_numbers, help="Also write all numbers here.")
    ] = None,
) -> None:
    """Score the predictions of a batch with labels that became known: the only test of accuracy there is."""
    found = score_batch(predictions, read_label_file(labels), read_label_file(learned) if learned else None)
    _print(found)
    if json is not None:
        write_json(json, asdict(found))


def _print(found: LabelledBatch) -> None:
    console = Console(highlight=False)
    table = Table(title=f"Predictions of {found.release_id}, in percent", title_justify="left")
    for name in ("level", "rows", "n", "accuracy (95 %)", "macro F1", "calibration error"):
        table.add_column(name, justify="left" if name in ("level", "rows") else "right")
    for item in found.scores:
        table.add_row(
            item.level, item.rows, str(item.number), _share(item.accuracy), f"{100 * item.macro_f1:.1f}",
            f"{100 * item.calibration_error:.1f}",
        )  # fmt: skip
    console.print(table)
    wells = Table(title="Wells of each mechanism that are predicted so", title_justify="left")
    for name in ("mechanism", "wells", "recall"):
        wells.add_column(name, justify="left" if name == "mechanism" else "right")
    for name, (number, recall) in sorted(found.recall.items(), key=lambda item: item[1][1]):
        wells.add_row(name, str(number), f"{100 * recall:.0f}")
    console.print(wells)
    console.print("Intervals are over compounds (BCa): other compounds of these mechanisms, on these plates.")
    if found.unanswered:
        console.print(f"{found.unanswered} labelled wells have no answer (not delivered, or refused by the gate).")
    for names, what in (
        (found.unknown, "Not scored, since the head does not know the mechanism and no answer can be right"),
        (found.without_label, "Without a label"),
    ):
        if names:
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            console.print(f"{what} ({len(names)}): {', '.join(names[:SHOWN])}{more}.")


def _share(accuracy: Any) -> str:
    text = f"{100 * accuracy.mean:.1f}"
    return text if np.isnan(accuracy.low) else f"{text} ({100 * accuracy.low:.0f} to {100 * accuracy.high:.0f})"
