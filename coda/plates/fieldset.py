"""FieldSet: fields of view in memory, as training, adaptation and evaluation take them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class FieldSet:
    """Images and their rows of the field index, in one order.

    Attributes:
        pool: uint8, shape (images, channels, height, width); channels as in `channels`. Sets that were taken from one
            another share it: nothing is copied.
        table: One row a field with the `Metadata_*` columns of the field index and ``image_id``; its index is 0..n-1.
            It never holds a mechanism of action.
        channels: Stain names along the channel axis.
        rows: Place of each field in `pool`, shape (fields,); None where the fields are the pool, in its order.

    Example:
        >>> table = pd.DataFrame({"image_id": ["f1", "f2"], "Metadata_Well": ["A01", "B02"]})
        >>> fields = FieldSet(np.zeros((2, 1, 8, 8), np.uint8), table, ("DNA",))
        >>> fields.take(fields.table["Metadata_Well"].to_numpy() == "B02").table["image_id"].tolist()
        ['f2']
    """

    pool: NDArray[np.uint8]
    table: pd.DataFrame
    channels: tuple[str, ...]
    rows: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        """Refuse images and rows that do not belong together."""
        if self.pool.dtype != np.uint8 or self.pool.ndim != 4:
            message = f"images must be uint8 of 4 axes, not {self.pool.dtype} of shape {self.pool.shape}"
            raise ValueError(message)
        fields = len(self.pool) if self.rows is None else len(self.rows)
        if fields != len(self.table) or self.pool.shape[1] != len(self.channels):
            shape = (fields, *self.pool.shape[1:])
            message = f"{shape} images, {len(self.table)} rows and {len(self.channels)} channels do not fit"
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number of fields."""
        return len(self.table)

    @property
    def images(self) -> NDArray[np.uint8]:
        """The images in the order of the table: a view of the pool where they lie together in it, else a copy."""
        if self.rows is None:
            return self.pool
        first = int(self.rows[0]) if len(self.rows) else 0
        if np.array_equal(self.rows, np.arange(first, first + len(self.rows))):
            return self.pool[first : first + len(self.rows)]
        return self.pool[self.rows]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "FieldSet":
        """Return the fields at these rows (mask or positions), in the order given; no image is copied."""
        positions = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.intp, copy=False)
        table = self.table.iloc[positions].reset_index(drop=True)
        return FieldSet(self.pool, table, self.channels, positions if self.rows is None else self.rows[positions])
