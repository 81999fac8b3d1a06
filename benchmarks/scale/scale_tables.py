"""What `coda benchmark scale` prints, at most 80 columns wide."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.scale.scale_verdicts import Verdict, growth_of, stored

WIDTH = 80
MIB = 2**20
MET = {True: "met", False: "MISSED", None: "-"}

Figures = dict[str, Any]


def print_sizes(rows: Sequence[Figures], console: Console) -> None:
    """Print a row for each size: what one batch costs as a whole."""
    head = ("plates", "archive", "D MB", "s", "CPU s", "moved D", "pixels D", "left D", "requests", "ended")
    lines = [
        (
            row["plates"], row["archive"], f"{row['stored_bytes'] / 1e6:.1f}", f"{row['seconds']:.0f}",
            f"{row['cpu_s']:.0f}", f"{stored(row, row['moved_bytes']):.2f}",
            f"{stored(row, row['moved_stores_bytes']):.2f}", f"{stored(row, row['left_bytes']):.2f}",
            f"{row['requests']:,}", row["outcome"].replace("_", " "),
        )
        for row in rows
    ]  # fmt: skip
    _print("Batches; D is the bytes of their plate stores", head, lines, console, words=("ended",))


def print_steps(row: Figures, console: Console) -> None:
    """Print a row for each step of one size: what it used, and what it moved in stored bytes of the batch."""
    head = ("step", "s", "CPU s", "MiB", "all MiB", "in D", "out D", "get D", "put D", "requests")
    lines = []
    for step, used in row["steps"].items():
        store = [used["data"], used["records"]]
        lines.append((
            step, f"{used['seconds']:.1f}", f"{used['cpu_s']:.1f}", f"{used['peak_bytes'] / MIB:.0f}",
            f"{used['peak_all_bytes'] / MIB:.0f}", _d(row, used["handed_bytes"]), _d(row, used["output_bytes"]),
            _d(row, sum(part["read_bytes"] for part in store)), _d(row, sum(part["written_bytes"] for part in store)),
            f"{sum(used[name]['requests'] for name in ('raw', 'data', 'records')):,}",
        ))  # fmt: skip
    title = (
        f"Steps at {row['plates']} plates after {row['archive']} batches; get and put: object storage but raw images"
    )
    _print(title, head, lines, console, words=("step",))


def print_growth(rows: Sequence[Figures], console: Console) -> None:
    """Print the exponents between the two largest sizes, and what one more plate costs."""
    if len(rows) < 2:
        return
    growth = growth_of(rows)
    head = ("step", "s", "CPU s", "MiB", "CPU s a plate", "MiB a plate")
    lines = [
        (
            step, _number(fits["seconds"]["last_doubling"]), _number(fits["cpu_s"]["last_doubling"]),
            _number(fits["peak_bytes"]["last_doubling"]), _number(fits["cpu_s"]["a_plate"]),
            _number((fits["peak_bytes"]["a_plate"] or 0) / MIB),
        )
        for step, fits in [*growth["steps"].items(), ("all", growth)]
    ]  # fmt: skip
    between = " to ".join(str(row["plates"]) for row in rows[-2:])
    _print(f"Exponents from {between} plates; costs of one more plate", head, lines, console, words=("step",))


def print_parts(parts: Mapping[str, Figures], console: Console) -> None:
    """Print what a trigger's polls cost, a large manifest, and a list of releases."""
    lines: list[tuple[str, Figures, int]] = []
    if looks := parts.get("looks"):
        behind = f"{looks['objects']:,} objects, {looks['versions']:,} versions"
        for when, words in (("first", f"first, {behind}"), ("then", "every later time")):
            lines += [(f"{what}, {words}", looks[when][what], looks["peak_bytes"]) for what in ("look", "round")]
    if manifest := parts.get("manifest"):
        files = f"{manifest['plates']} plates, {manifest['files']:,} files"
        taken = "taken" if manifest["taken"] else "REFUSED"
        lines += [(f"{what}, {files}: {taken}", manifest[what], manifest["peak_bytes"]) for what in ("look", "round")]
    if releases := parts.get("releases"):
        for name, words in (("serving", "registry list"), ("versions", "registry list --versions")):
            cost = releases[name]
            lines.append((f"{words}, {releases['releases']:,} releases", cost, cost["peak_bytes"]))
    rows = [
        (words, f"{cost['seconds']:.2f}", f"{cost['cpu_s']:.2f}", f"{cost['requests']:,}", f"{peak / MIB:.0f}")
        for words, cost, peak in lines
    ]
    if rows:
        _print(
            "After years: a trigger and the registry",
            ("what", "s", "CPU s", "requests", "MiB"),
            rows,
            console,
            words=("what",),
        )


def print_verdicts(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print every target with what was found."""
    lines = [(it.target, it.found, MET[it.met]) for it in verdicts]
    _print("Targets", ("target", "found", ""), lines, console, words=("target", "found", ""))


def _print(
    title: str, head: Iterable[str], lines: Sequence[Sequence[object]], console: Console, *, words: Sequence[str]
) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in head:
        table.add_column(name, justify="left" if name in words else "right", overflow="fold")
    for line in lines:
        table.add_row(*(str(value) for value in line))
    console.print(f"[bold]{title}[/bold]", width=WIDTH)
    console.print(table, width=WIDTH)
    console.print()


def _d(row: Figures, value: float) -> str:
    return f"{stored(row, value):.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
