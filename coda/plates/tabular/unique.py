"""Rows of a table that say two things of one."""

from collections.abc import Callable, Sequence

import pandas as pd

from coda.errors import Problem
from coda.plates.tabular.wording import shown


def contradictions(
    rows: pd.DataFrame, key: str, values: Sequence[str], where: str, same: Callable[[str], object] = str
) -> list[Problem]:
    """Return a problem for each row that says another thing than an earlier one of the same key, if it has one.

    Args:
        rows: The table; its index is the line of each row.
        key: Column that names what a row is about.
        values: Columns in which rows of one key must agree.
        where: The table, for messages.
        same: Form in which keys are compared; None of it means that the text itself counts.
    """
    seen: dict[object, tuple[int, tuple[str, ...]]] = {}
    problems = []
    for line, name, *said in rows[[key, *values]].itertuples():
        form = same(str(name))
        before, known = seen.setdefault(str(name) if form is None else form, (line, tuple(said)))
        if name and known != tuple(said):
            found = f"{shown(', '.join(said))} for {shown(name)}, and in line {before} {shown(', '.join(known))}"
            remedy = "Remove the row that is wrong."
            problems.append(Problem(f"{where}, line {line}", found, f"one row for each {key}, or equal ones", remedy))
    return problems
