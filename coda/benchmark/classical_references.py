"""What a classical pipeline makes of the profile, as references beside the systems: measured, never served (0052).

Profiles are standardised in each group (batch or plate) by all wells or by negative controls, sphered or not, or
harmonised by ComBat; then the classical head's logistic regression. No label of a target is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from coda.config.params import Params
from coda.evaluation.metrics.two_sample import shrunk_covariance
from coda.networks.profile import Profile
from coda.plates.fieldset import FieldSet
from coda.training.classical_training import logistic_regression
from coda.training.labels import LabelList
from coda.training.profiles import extract_profiles
from coda.training.split import group_names

Numbers = NDArray[np.float64]

FILE = "profiles.parquet"
SMALLEST = 1e-6
"""Added to standard deviations, and least share of the mean variance in a direction: what is constant stays finite."""

CONVERGED = 1e-4
"""Relative change below which ComBat's estimates are taken as final (that of its authors)."""


@dataclass(frozen=True)
class Measured:
    """Profiles of fields, and what the references read of them.

    Attributes:
        numbers: Shape (fields, width).
        groups: Batch or plate of each field, shape (fields,).
        controls: Which fields are negative controls, shape (fields,).
        codes: Class of each field, -1 without a label; of a target nobody asks.
    """

    numbers: Numbers
    groups: NDArray[np.str_]
    controls: NDArray[np.bool_]
    codes: NDArray[np.intp]

    @classmethod
    def of(cls, fields: FieldSet, front: Profile, params: Params, labels: LabelList | None = None) -> "Measured":
        """Measure fields; without labels no field has a class."""
        table = fields.table
        codes = labels.codes(table) if labels is not None else np.full(len(table), -1)
        return cls(
            extract_profiles(front, fields)[:, 0, 0].double().numpy(),
            group_names(table, params.alignment.by),
            (table["Metadata_pert_type"] == "negcon").to_numpy(bool),
            codes.astype(np.intp),
        )

    def write(self, folder: Path) -> None:
        """Keep them in a folder, for `read`."""
        table = pd.DataFrame(self.numbers.astype(np.float32)).rename(columns=str)
        table.assign(group=self.groups, control=self.controls, code=self.codes).to_parquet(folder / FILE, index=False)

    @classmethod
    def read(cls, folder: Path) -> "Measured":
        """Read what `write` kept."""
        table = pd.read_parquet(folder / FILE)
        own = {name: table.pop(name).to_numpy() for name in ("group", "control", "code")}
        return cls(table.to_numpy(np.float64), own["group"].astype(str), own["control"], own["code"])


def references(source: Measured, target: Measured) -> dict[str, Numbers]:
    """Return the probabilities of the target's fields by each reference, shape (fields, classes).

    Args:
        source: Labelled fields of the training batches.
        target: Fields to predict.
    """
    found = {}
    for name, together in REFERENCES.items():
        own, other = together(source, target)
        known = source.codes >= 0
        weights, bias = logistic_regression(own[known], source.codes[known])
        found[name] = softmax(other @ weights.T + bias, axis=1)
    return found


def standardised(fields: Measured, *, by_controls: bool) -> Numbers:
    """Return the profiles with mean 0 and deviation 1 in each group, over all its wells or its negative controls.

    A group without negative controls is standardised by all its wells.
    """
    found = np.empty_like(fields.numbers)
    for name in np.unique(fields.groups):
        rows = fields.groups == name
        chosen = rows & fields.controls if by_controls and (rows & fields.controls).any() else rows
        own = fields.numbers[chosen]
        found[rows] = (fields.numbers[rows] - own.mean(axis=0)) / (own.std(axis=0) + SMALLEST)
    return found


def sphered(fields: Measured, *, by_controls: bool) -> Numbers:
    """Return standardised profiles in which negative controls vary alike in all directions (ZCA whitening).

    Groups are standardised each by itself, and whitened together by all their negative controls: those of one batch are
    fewer than the numbers of a profile. With less than two negative controls nothing is whitened.
    """
    numbers = standardised(fields, by_controls=by_controls)
    if fields.controls.sum() < 2:
        return numbers
    mean, matrix = sphering(numbers[fields.controls])
    return (numbers - mean) @ matrix


def sphering(controls: Numbers) -> tuple[Numbers, Numbers]:
    """Return mean and matrix that whiten controls: the inverse square root of their shrunk covariance.

    The covariance is shrunk towards a multiple of the identity by the share that Ledoit and Wolf (2004) estimate.

    Args:
        controls: Shape (fields, width), at least one field.

    Returns:
        Mean, shape (width,), and a symmetric matrix, shape (width, width).
    """
    mean = controls.mean(axis=0)
    values, vectors = np.linalg.eigh(shrunk_covariance(controls))
    least = max(SMALLEST * float(values.mean()), SMALLEST**2)
    return mean, (vectors * np.maximum(values, least) ** -0.5) @ vectors.T


def combat(numbers: Numbers, batches: NDArray[np.str_]) -> Numbers:
    """Return numbers without the batches' own means and deviations, by ComBat (Johnson, Li, Rabinovic 2007).

    Parametric empirical Bayes without covariates: each batch's shift and scale of a feature is drawn towards what the
    batch has in its other features. Constant features stay.

    Args:
        numbers: Shape (fields, width).
        batches: Batch of each field; one of a single field has its shift removed, and no scale.
    """
    names, place, counts = np.unique(batches, return_inverse=True, return_counts=True)
    means = np.stack([numbers[place == batch].mean(axis=0) for batch in range(len(names))])
    grand = counts @ means / len(numbers)
    deviation = np.sqrt(((numbers - means[place]) ** 2).mean(axis=0))
    varies = deviation > SMALLEST
    found = numbers.copy()
    plain = (numbers[:, varies] - grand[varies]) / deviation[varies]
    for batch in range(len(names)):
        rows = place == batch
        shift, scale = _posterior(plain[rows])
        found[np.ix_(rows, varies)] = (plain[rows] - shift) / np.sqrt(scale) * deviation[varies] + grand[varies]
    return found


def _posterior(own: Numbers) -> tuple[Numbers, Numbers]:
    """Return a batch's shift and squared scale of each feature, after its prior over features."""
    count, raw = len(own), own.mean(axis=0)
    if count < 2 or own.shape[1] < 2:  # nothing to tell a scale by, or no other feature to take a prior from
        return raw, np.ones_like(raw)
    spread = own.var(axis=0, ddof=1)
    centre, width = raw.mean(), raw.var(ddof=1)
    typical, uneven = spread.mean(), spread.var(ddof=1)
    shape, rate = (2 * uneven + typical**2) / uneven, (typical * uneven + typical**3) / uneven
    shift, scale, change = raw, spread, 1.0
    while change > CONVERGED:
        new = (width * count * raw + scale * centre) / (width * count + scale)
        squares = ((own - new) ** 2).sum(axis=0)
        wide = (squares / 2 + rate) / (count / 2 + shape - 1)
        moved = np.abs(new - shift) / np.maximum(np.abs(shift), SMALLEST)
        change = max(float(np.max(moved)), float(np.max(np.abs(wide - scale) / scale)))
        shift, scale = new, wide
    return shift, scale


def _each(
    prepared: Callable[[Measured], Numbers], source: Measured, target: Measured
) -> tuple[Numbers, Numbers]:  # fmt: skip
    return prepared(source), prepared(target)


def _combat(source: Measured, target: Measured) -> tuple[Numbers, Numbers]:
    both = combat(
        np.concatenate([source.numbers, target.numbers]), np.concatenate([source.groups, target.groups])
    )  # fmt: skip
    own, other = both[: len(source.numbers)], both[len(source.numbers) :]
    mean, deviation = own.mean(axis=0), own.std(axis=0) + SMALLEST  # the penalty is for numbers of deviation 1
    return (own - mean) / deviation, (other - mean) / deviation


REFERENCES: Mapping[str, Callable[[Measured, Measured], tuple[Numbers, Numbers]]] = {
    "controls": partial(_each, partial(standardised, by_controls=True)),
    "sphered": partial(_each, partial(sphered, by_controls=False)),
    "controls-sphered": partial(_each, partial(sphered, by_controls=True)),
    "combat": _combat,
}
"""Name of a reference -> what it makes of the source's and the target's profiles before the regression."""
