"""The report of a benchmark: tables as CSV, pictures as PNG, and one HTML page that needs nothing else."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

import coda

DPI = 140
REPORT_NAME = "report.html"


@dataclass(frozen=True)
class ReportTable:
    """One table.

    Attributes:
        name: Name of its CSV file, without the ending.
        title: Heading on the page.
        values: What the CSV holds, in full precision.
        shown: What the page shows, as text; the values themselves when not given.
        caption: One or more sentences below it.
        best: (row, column) of `shown` that are marked, by position.
        breaks: Rows of `shown` before which a line is drawn, by position.
        quiet: Columns of `shown`, by name, that are printed in grey: what is beside the point, or another's.
    """

    name: str
    title: str
    values: pd.DataFrame
    shown: pd.DataFrame | None = None
    caption: str = ""
    best: frozenset[tuple[int, int]] = frozenset()
    breaks: frozenset[int] = frozenset()
    quiet: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ReportPicture:
    """One picture.

    Attributes:
        name: Name of its PNG file, without the ending.
        title: Heading on the page.
        figure: What is drawn.
        alt: What it shows, for people who cannot see it.
        caption: Sentences below it.
    """

    name: str
    title: str
    figure: Figure
    alt: str
    caption: str = ""


def write_report(
    folder: Path,
    title: str,
    tables: Sequence[ReportTable],
    pictures: Sequence[ReportPicture] = (),
    notes: Sequence[str] = (),
    *,
    facts: Mapping[str, str] | None = None,
    lead: str = "",
) -> Path:
    """Write a CSV for each table, a PNG for each picture, and the page; every file whole or not at all.

    Args:
        folder: Where everything goes; it is made.
        title: Of the page.
        tables: In the order of the page.
        pictures: In the order of the page, after the first table.
        notes: Paragraphs that say how to read the numbers and what they cannot carry.
        facts: Where the numbers come from: seeds, parameters, machine, time.
        lead: The result in a sentence or two, at the top.

    Returns:
        The page, ``folder/report.html``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        _replace(folder / f"{table.name}.csv", table.values.to_csv(index=False, lineterminator="\n").encode())
    drawn = []
    for picture in pictures:
        content = png_of(picture.figure)
        _replace(folder / f"{picture.name}.png", content)
        uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
        width, height = picture.figure.canvas.get_width_height()
        drawn.append({"picture": picture, "uri": uri, "width": width, "height": height})
    facts = {
        **(facts or {}),
        "Written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Program": f"coda {coda.__version__}",
    }
    page = _template().render(
        title=title,
        lead=lead,
        style=_resource("report.css"),
        tables=[_shown(table) for table in tables],
        pictures=drawn,
        notes=notes,
        facts=facts,
    )
    return _replace(folder / REPORT_NAME, page.encode())


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


def write_json(path: Path, content: Any) -> Path:
    """Write JSON for programs, whole or not at all: numbers that are none become null, arrays become lists."""
    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
    return _replace(path, text.encode())


def plain(value: Any) -> Any:
    """Return a value as JSON values: numpy and pandas by their content, infinite and missing numbers as null."""
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(table: ReportTable) -> dict[str, Any]:
    frame = table.values if table.shown is None else table.shown
    cells = [
        [
            {"text": _text(value), "best": (row, column) in table.best, "quiet": name in table.quiet,
             "number": (column > 0 and not isinstance(value, str)) or _looks_like_number(value)}
            for column, (name, value) in enumerate(zip(frame.columns, values, strict=True))
        ]
        for row, values in enumerate(frame.itertuples(index=False))
    ]  # fmt: skip
    return {"table": table, "columns": [str(name) for name in frame.columns], "rows": list(enumerate(cells))}


def _looks_like_number(value: Any) -> bool:
    return isinstance(value, str) and (not value or value[0] in "0123456789-−+–")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "–"
    return str(value)


def _replace(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(content)
    draft.replace(path)
    return path


def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_resource("report.html.j2"))


def _resource(name: str) -> str:
    return files("coda.benchmark").joinpath(name).read_text(encoding="utf-8")
