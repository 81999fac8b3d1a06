"""FieldSet: fields of view in memory, as training, adaptation and evaluation take them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class FieldSet:
    """Images and their rows of the field index, in one order.

    Attributes:
        images: uint8, shape (fields, channels, height, width); channels as in `channels`.
        table: One row a field with the `Metadata_*` columns of the field index and ``image_id``; its index is 0..n-1.
            It never holds a mechanism of action.
        channels: Stain names along the channel axis.
    """

    images: NDArray[np.uint8]
    table: pd.DataFrame
    channels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse images and rows that do not belong together."""
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            message = f"images must be uint8 of 4 axes, not {self.images.dtype} of shape {self.images.shape}"
            raise ValueError(message)
        if len(self.images) != len(self.table) or self.images.shape[1] != len(self.channels):
            message = f"{self.images.shape} images, {len(self.table)} rows and {len(self.channels)} channels do not fit"
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number of fields."""
        return len(self.images)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "FieldSet":
        """Return the fields at these rows (mask or positions), in the order given."""
        positions = np.flatnonzero(rows) if rows.dtype == bool else rows
        return FieldSet(self.images[positions], self.table.iloc[positions].reset_index(drop=True), self.channels)
