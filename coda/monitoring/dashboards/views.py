"""What a dashboard shows, without Grafana: panels, their queries and where a click leads.

A gauge keeps its value until the source's next batch, which may never come. So whatever tells of one batch is shown
while that batch is at most ``$age`` seconds old, and its line ends then; only ages are shown for ever.
"""

from dataclasses import dataclass
from typing import Literal

Shape = Literal["stat", "lines", "table"]
Page = Literal["source", "controls", "predictions", ""]


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL, with the variables of its dashboard.
        legend: Legend of its lines, with ``{{label}}``.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class View:
    """One panel.

    Attributes:
        title: Heading in words of the field.
        queries: What it shows; the tables of several are joined by source.
        shape: How it is drawn.
        unit: Grafana unit: ``short``, ``percentunit``, ``s``.
        span: Width in twenty-fourths of the page.
        height: In Grafana's units.
        limits: Values from which a number is drawn in red; of a symmetric pair, below the first one too.
        page: Page of a source that a click on a line or cell leads to.
        columns: Of a table: column and its heading, in order; others are not shown.
        repeat: Variable for each of whose values the panel is drawn once.
        about: What it is good for; the metrics' own words when not given.
    """

    title: str
    queries: tuple[Query, ...]
    shape: Shape = "lines"
    unit: str = "short"
    span: int = 8
    height: int = 8
    limits: tuple[float, ...] = ()
    page: Page = "source"
    columns: tuple[tuple[str, str], ...] = ()
    repeat: str = ""
    about: str = ""


Row = tuple[str, tuple[View, ...]]


@dataclass(frozen=True)
class Variable:
    """What a dashboard asks for above its panels.

    Attributes:
        name: Name in queries.
        label: Heading.
        query: ``label_values(metric, label)``; empty for `choices`.
        choices: Words -> value.
        every: Whether all may be chosen at once.
        first: What is chosen at first, where that is there.
        hidden: It is no choice, but is needed for links.
    """

    name: str
    label: str
    query: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    every: bool = False
    first: tuple[str, ...] = ()
    hidden: bool = False


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    title: str
    uid: str
    about: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    batches_marked: bool = True


SITE = Variable("site", "Pages", "label_values(coda_site_info, url)", hidden=True)
AGE = Variable(
    "age", "Batches at most this old",
    choices=(
        ("1 day", "86400"), ("3 days", "259200"), ("1 week", "604800"), ("2 weeks", "1209600"),
        ("1 month", "2592000"), ("1 quarter", "7862400"), ("1 year", "31536000"),
    ),
    first=("2 weeks", "1209600"),
)  # fmt: skip
SOURCES = Variable("source", "Source", "label_values(coda_batch_ended_timestamp_seconds, source)", every=True)
INSTRUMENTS = Variable(
    "instrument", "Microscope",
    'label_values(coda_drift_batch_timestamp_seconds{source=~"$source"}, instrument)', every=True,
)  # fmt: skip

OF_SOURCE = '{source=~"$source"}'
OF_BATCH = '{source=~"$source",instrument=~"$instrument"}'


def pushed(expr: str) -> str:
    """Return what a batch step pushed, while its batch is as young as wanted."""
    return f"(({expr}) and on (source) (time() - coda_metrics_pushed_timestamp_seconds < $age))"


def judged(name: str, more: str = "") -> str:
    """Return what the drift rules say of the newest batch of a microscope, while that is as young as wanted.

    Args:
        name: Metric of the family 'drift', with the labels of a series.
        more: Further matchers.
    """
    matchers = ",".join(['source=~"$source"', 'instrument=~"$instrument"', *([more] if more else [])])
    fresh = "time() - coda_drift_batch_timestamp_seconds < $age"
    return f"({name}{{{matchers}}} and on (source, instrument) ({fresh}))"


def line(title: str, expr: str, legend: str, unit: str = "short", span: int = 8, *, limit: float | None = None) -> View:
    """Return lines over time of one query."""
    return View(title, (Query(expr, legend),), "lines", unit, span, limits=() if limit is None else (limit,))


def number(
    title: str, expr: str, legend: str = "", unit: str = "short", span: int = 4, *, limit: float | None = None
) -> View:
    """Return the newest value of one query."""
    return View(title, (Query(expr, legend),), "stat", unit, span, 4, () if limit is None else (limit,))


def broken(title: str, groups: str, page: Page, span: int = 24) -> View:
    """Return the table of the rules that newest batches break."""
    expr = f"sum by (source, instrument, group, metric, rule) {judged('coda_drift_rule_broken', groups)}"
    columns = (
        ("source", "source"), ("instrument", "microscope"), ("group", "part"), ("metric", "number"), ("rule", "rule"),
    )  # fmt: skip
    return View(title, (Query(expr),), "table", span=span, page=page, columns=columns)
