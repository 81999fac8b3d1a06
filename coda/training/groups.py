"""Token statistics of each batch or plate, and tokens standardised by their own group (decision 0006)."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.networks.alignment import RunningStatistics, TokenStatistics, fit_statistics, standardise
from coda.training.split import group_names


def group_statistics(tokens: Tensor, table: pd.DataFrame, *, by: str, wells: str) -> dict[str, TokenStatistics]:
    """Fit statistics on each group of fields.

    Args:
        tokens: Shape (fields, crops, tokens, width), rows as in `table`.
        table: Field index.
        by: 'batch' or 'plate'.
        wells: 'all', or 'negcon' for negative controls only (all wells of a group that has none).
    """
    names, controls = group_names(table, by), (table["Metadata_pert_type"] == "negcon").to_numpy()
    statistics = {}
    for name in np.unique(names):
        chosen = names == name
        if wells == "negcon" and (chosen & controls).any():
            chosen = chosen & controls
        statistics[str(name)] = fit_statistics(tokens[torch.from_numpy(np.flatnonzero(chosen))])
    return statistics


class GroupStatistics:
    """Statistics of each group of fields, from tokens that are given a few fields at a time."""

    def __init__(self, table: pd.DataFrame, *, by: str, wells: str) -> None:
        """Begin without a token; see `group_statistics` for the arguments."""
        self.names = group_names(table, by)
        controls = (table["Metadata_pert_type"] == "negcon").to_numpy()
        having = np.isin(self.names, self.names[controls]) if wells == "negcon" else np.zeros(len(table), dtype=bool)
        self._counts = controls | ~having
        self._running = {str(name): RunningStatistics() for name in np.unique(self.names)}

    def add(self, rows: NDArray[np.intp], tokens: Tensor) -> None:
        """Take in tokens of fields, shape (fields, ..., tokens, width)."""
        for name in np.unique(self.names[rows]):
            chosen = np.flatnonzero((self.names[rows] == name) & self._counts[rows])
            self._running[str(name)].add(tokens[torch.from_numpy(chosen)])

    def statistics(self) -> dict[str, TokenStatistics]:
        """Return the statistics of every group."""
        return {name: running.statistics() for name, running in self._running.items()}


def standardise_groups(tokens: Tensor, names: NDArray[np.str_], statistics: dict[str, TokenStatistics]) -> Tensor:
    """Standardise every field's tokens by the statistics of its own group; shape and order stay."""
    aligned = torch.empty_like(tokens, dtype=torch.float32)
    for name in np.unique(names):
        rows = torch.from_numpy(np.flatnonzero(names == name))
        aligned[rows] = standardise(tokens[rows], statistics[str(name)])
    return aligned
