"""What benchmarks print when they are done."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

LOG_WIDTH, MOST_COLUMNS = 132, 10


def print_tables(facts: dict[str, str], tables: Sequence[tuple[str, pd.DataFrame]]) -> None:
    """Print facts and tables; a table of many columns is turned, so that it fits a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    for name, text in facts.items():
        console.print(f"{name}: {text}", markup=False)
    for title, frame in tables:
        turned = len(frame.columns) > MOST_COLUMNS
        rows = [[str(name), *frame[name]] for name in frame] if turned else [list(row) for row in frame.to_numpy()]
        shown = Table(title=title, title_justify="left", show_header=not turned)
        for name in [""] * (len(frame) + 1) if turned else frame.columns:
            shown.add_column(str(name).replace("_", " "))
        for row in rows:
            shown.add_row(*(_text(value) for value in row))
        console.print(shown)


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value).replace("_", " ")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
