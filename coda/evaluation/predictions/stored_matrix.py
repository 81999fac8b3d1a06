"""A matrix that stays in its file: rows are read when they are asked for, so that memory does not grow with them."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from coda.errors import ContractError, Problem

BLOCK_ROWS = 1024
"""Rows that whoever goes through a matrix has in memory at once."""


class Rows(Protocol):
    """What an array and a `StoredMatrix` have in common: a shape, and rows by slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return some of the rows."""


class StoredMatrix:
    """A matrix of an .npy file. The same slices of it and of the loaded array hold the same values."""

    def __init__(self, path: Path) -> None:
        """Read the file's header; see `stored_matrix`, which says what the file must be."""
        self._path = path
        mapped = _mapped(path)
        self.shape: tuple[int, int] = (int(mapped.shape[0]), int(mapped.shape[1]))
        self._type, self._start = mapped.dtype, int(mapped.offset)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"rows of a stored matrix are read one after the other, not by steps of {step}")
        width = self.shape[1]
        count, skipped = max(0, stop - start) * width, start * width * self._type.itemsize
        values = np.fromfile(self._path, self._type, count=count, offset=self._start + skipped)
        if len(values) != count:
            problem = Problem(str(self._path), f"{len(values)} numbers from row {start} on", f"{count}", _REMEDY)
            raise ContractError("A matrix was cut while it was read.", [problem])
        return values.reshape(-1, width)


_REMEDY = "Run the step that writes it again."


def stored_matrix(path: Path) -> Rows:
    """Return the matrix of an .npy file, without reading it.

    Args:
        path: A file that `numpy.save` wrote: numbers, two dimensions. One that lies column by column is read whole.

    Raises:
        ContractError: The file is something else, or is cut.
    """
    mapped = _mapped(path)
    if mapped.ndim != 2:
        problem = Problem(str(path), f"{mapped.ndim} dimensions", "rows and columns", _REMEDY)
        raise ContractError("A matrix cannot be read.", [problem])
    return StoredMatrix(path) if mapped.flags.c_contiguous else np.array(mapped)


def _mapped(path: Path) -> "np.memmap[Any, Any]":
    try:
        mapped: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        problem = Problem(str(path), str(error)[:200], "numbers as numpy.save writes them", _REMEDY)
        raise ContractError("A matrix cannot be read.", [problem]) from error
    return mapped
