"""What self-supervised training may know of a field: the columns of the field index, and nothing else."""

import pandas as pd

from coda.contracts.fields import METADATA_COLUMNS
from coda.errors import ConfigError, Problem

KNOWN = frozenset({"image_id", *METADATA_COLUMNS.values()})
"""Columns that a table of fields may have. None of them holds a mechanism of action: `coda.contracts.fields`."""


def require_blind(fields: pd.DataFrame) -> None:
    """Refuse a table of fields with a column that the field index does not have, whatever it is called.

    A list of what may be there is a guarantee; a list of names that labels might have is none.

    Raises:
        ConfigError: There are other columns.
    """
    others = [str(name) for name in fields.columns if name not in KNOWN]
    if others:
        found = f"the column(s) {', '.join(map(repr, others[:5]))}"
        remedy = "Load the fields with coda.plates.dataset, or drop the columns; labels go to train-head alone."
        problem = Problem("field index", found, f"only {', '.join(sorted(KNOWN))}", remedy)
        raise ConfigError("Self-supervised training must not see more of a field than its index says.", [problem])
