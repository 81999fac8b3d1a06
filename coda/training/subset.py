"""Which fields self-supervision may start from: all of them, or those of compounds that have a label, as in the paper.

A label reaches no weight by its value: what is known here is a list of compounds, not what they do. It does choose the
images, so whoever has no labels of a compound must not choose so: the default is all fields.
"""

from collections.abc import Collection
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.errors import ConfigError, Problem


def chosen_fields(
    table: pd.DataFrame, fields: Literal["all", "labelled"], compounds: Collection[str] | None, *, key: str
) -> NDArray[np.bool_] | None:
    """Return which fields may start a pair; None for all.

    Args:
        table: Field index.
        fields: What the parameters ask for.
        compounds: Compounds that have a label, by the names of the plate maps; None where nobody knows.
        key: Dotted path of the parameter, for messages.

    Returns:
        Mask of the treated fields of these compounds, or None. Partners have the treatment of the field they are
        paired with, so that they are among them.

    Raises:
        ConfigError: Labelled fields are asked for, and the compounds are not known, or none of them is on the plates.
    """
    if fields == "all":
        return None
    remedy = f"Give the label table (--labels), or set {key}=all."
    if compounds is None:
        problem = Problem(key, "'labelled' without a list of labelled compounds", "a label table", remedy)
        raise ConfigError("Nobody knows which fields are labelled.", [problem])
    treated = ~table["Metadata_pert_type"].isin(["negcon", "empty"])
    chosen: NDArray[np.bool_] = (treated & table["Metadata_Compound"].astype(str).isin(list(compounds))).to_numpy(bool)
    if not chosen.any():
        problem = Problem(key, "no field of a labelled compound", "at least one", remedy)
        raise ConfigError("There is no labelled field to learn from.", [problem])
    return chosen
