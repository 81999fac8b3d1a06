"""How often predictions are right: over fields, wells, and evenly over mechanisms (method section 3.4)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def accuracy(probabilities: NDArray[np.floating], codes: NDArray[np.int64]) -> float:
    """Return the share (0..1) of rows whose most probable class is the true one.

    Args:
        probabilities: Shape (rows, classes).
        codes: True classes, none negative, shape (rows,).
    """
    return float((probabilities.argmax(axis=1) == codes).mean())


def macro_f1(probabilities: NDArray[np.floating], codes: NDArray[np.int64]) -> float:
    """Return the mean over classes of 2 TP / (2 TP + FP + FN), over classes that occur or are predicted."""
    predicted = probabilities.argmax(axis=1)
    scores = []
    for code in np.union1d(codes, predicted):
        hits = np.sum((codes == code) & (predicted == code))
        scores.append(2 * hits / (np.sum(codes == code) + np.sum(predicted == code)))
    return float(np.mean(scores))


def by_well(
    probabilities: NDArray[np.floating], codes: NDArray[np.int64], table: pd.DataFrame
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Return mean probabilities and class of every well.

    Args:
        probabilities: Shape (fields, classes), rows as in `table`.
        codes: Shape (fields,); fields of one well share their class.
        table: Field index.

    Returns:
        Shapes (wells, classes) and (wells,).
    """
    wells = table["Metadata_Source"] + "/" + table["Metadata_Batch"] + "/" + table["Metadata_Plate"]
    _, first, inverse = np.unique(
        (wells + "/" + table["Metadata_Well"]).to_numpy(str), return_index=True, return_inverse=True
    )
    sums = np.zeros((len(first), probabilities.shape[1]))
    np.add.at(sums, inverse, probabilities)
    return sums / np.bincount(inverse)[:, None], codes[first]
