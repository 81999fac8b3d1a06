"""What replicates must differ in to be compared: their batch, or their plate where there is one batch."""

from typing import Literal

import pandas as pd


def comparison_groups(rows: pd.DataFrame) -> tuple[Literal["batch", "plate", "nothing"], list[str]]:
    """Return what replicates must differ in, and each row's group.

    Batches where there are two or more, else plates: a first batch has no other to be compared with.
    """
    batch = rows["Metadata_Source"].astype(str) + "/" + rows["Metadata_Batch"].astype(str)
    if len(set(batch)) > 1:
        return "batch", batch.tolist()
    plate = batch + "/" + rows["Metadata_Plate"].astype(str)
    return ("plate" if len(set(plate)) > 1 else "nothing"), plate.tolist()
