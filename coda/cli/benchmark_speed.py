"""`coda benchmark speed`: its options, and what it prints."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from coda.cli.options import read_params
from coda.config import Params
from coda.errors import ConfigError, Problem

SCALES = ("demo", "deit-small")
ON_A_CPU = ("pretrain.batch_size=8", "compute.precision=bfloat16", "compute.threads=2")
"""What the paper's network needs on a CPU, where a batch of 128 would take a minute."""

LOG_WIDTH, MOST_COLUMNS = 132, 10


def read_scales(scales: Sequence[str], params: Path, overlay: list[Path], changes: list[str]) -> dict[str, Params]:
    """Return the parameters of each scale that was asked for.

    Raises:
        ConfigError: A scale is unknown, or the parameters are not valid.
    """
    unknown = [name for name in scales if name not in SCALES]
    if unknown:
        problem = Problem("--scale", ", ".join(unknown), f"some of {', '.join(SCALES)}", "Name a scale.")
        raise ConfigError("There is no such scale.", [problem])
    import torch

    found = {}
    for name in dict.fromkeys(scales):
        if name == "demo":
            found[name] = read_params(params, [params.parent / "params" / "demo.yaml", *overlay], changes)
        else:
            size = [] if torch.cuda.is_available() else list(ON_A_CPU)
            found[name] = read_params(params, overlay, ["extractor.weights=random", *size, *changes])
    return found


@contextmanager
def showing_words() -> Iterator[Callable[[str], None]]:
    """Give the function that is told what is being measured: a status on a terminal, lines in a log."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: print(words, file=sys.stderr, flush=True)
        return
    with console.status("the machine") as status:
        yield status.update


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
