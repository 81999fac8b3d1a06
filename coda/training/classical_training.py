"""Training of the classical head: profiles of the labelled fields, standardised by group, and a logistic regression."""

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from coda.config.params import Params
from coda.errors import ConfigError, Problem
from coda.networks.alignment import TokenStatistics, fit_statistics
from coda.networks.classical_head import ClassicalHead, new_classical_head
from coda.networks.extractor import Extractor
from coda.networks.profile import Profile
from coda.plates.stored import Fields
from coda.training.groups import group_statistics, standardise_groups
from coda.training.labels import LabelList
from coda.training.profiles import extract_profiles
from coda.training.split import group_names

STRENGTH = 0.1
"""Inverse strength of the penalty (scikit-learn's C), for numbers of standard deviation 1."""

MOST_ITERATIONS = 2000
"""Steps of the solver at most; it ends earlier where nothing moves any more."""


@dataclass(frozen=True)
class ClassicalResult:
    """What training the classical head leaves.

    Attributes:
        head: Frozen, in evaluation mode.
        source: Statistics of the raw profiles of all training wells.
        accuracy: Field accuracy on the labelled held-out fields; NaN without any.
        seconds: Wall time, profiles included.
        log: Validations on the way: none, the solver is asked once.
    """

    head: ClassicalHead
    source: TokenStatistics
    accuracy: float
    seconds: float
    log: list[dict[str, float]] = field(default_factory=list)


def train_classical(
    extractor: Extractor, training: Fields, validation: Fields, labels: LabelList, params: Params
) -> ClassicalResult:
    """Fit the classical head on a source's plates. Nothing is drawn at random.

    Every mechanism weighs the same, however many compounds it has, as one unlike the source's mix may come.

    Args:
        extractor: The line's; its record of stains, crops and preparation is the profile's too.
        training: Fields of the training batches.
        validation: Fields of the held-out batches, for the accuracy that is told.
        labels: The frozen label list.
        params: `alignment` says whose wells standardise.

    Raises:
        ConfigError: The solver did not come to an end.
    """
    start = time.perf_counter()
    front = Profile(extractor.config)
    raw = extract_profiles(front, training)
    codes = labels.codes(training.table)
    known = codes >= 0
    aligned = _standardised(raw, training, params)[torch.from_numpy(np.flatnonzero(known))]
    head = new_classical_head(params, extractor, labels.classes)
    # float64: the solver ends where the gradient is small, which float32 hides in its rounding
    weights, bias = logistic_regression(aligned[:, 0, 0].double().numpy(), codes[known])
    with torch.no_grad():
        head.classifier.weight.copy_(torch.from_numpy(weights))
        head.classifier.bias.copy_(torch.from_numpy(bias))
    return ClassicalResult(
        head.requires_grad_(requires_grad=False).eval(),
        fit_statistics(raw),
        _accuracy(head, validation, front, labels, params),
        time.perf_counter() - start,
    )


def _standardised(raw: Tensor, fields: Fields, params: Params) -> Tensor:
    groups = params.alignment
    statistics = group_statistics(raw, fields.table, by=groups.by, wells=groups.wells)
    return standardise_groups(raw, group_names(fields.table, groups.by), statistics)


def logistic_regression(
    profiles: NDArray[np.float64], codes: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the classical head's regression: every mechanism weighs the same.

    Args:
        profiles: Numbers of about standard deviation 1, shape (fields, width).
        codes: Class of each field, shape (fields,).

    Returns:
        Weights, shape (classes, width), and bias, shape (classes,); of a single class, which leaves nothing to tell
        apart, zeros.

    Raises:
        ConfigError: The solver did not come to an end.
    """
    if len(np.unique(codes)) < 2:
        return np.zeros((1, profiles.shape[1])), np.zeros(1)
    model = LogisticRegression(C=STRENGTH, max_iter=MOST_ITERATIONS, class_weight="balanced")
    model.fit(profiles, codes)
    if int(model.n_iter_[0]) >= MOST_ITERATIONS:
        remedy = "Look for plates whose numbers are far from the others' (`coda plates show`), or report this."
        problem = Problem("classical head", f"{MOST_ITERATIONS} steps", "a solver that comes to an end", remedy)
        raise ConfigError("The classical head cannot be fitted.", [problem])
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # of two mechanisms: the logit of the second over the first
        weights, bias = np.concatenate([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    return weights, bias


@torch.inference_mode()
def _accuracy(head: ClassicalHead, fields: Fields, front: Profile, labels: LabelList, params: Params) -> float:
    codes = labels.codes(fields.table)
    known = codes >= 0
    if not known.any():
        return float("nan")
    aligned = _standardised(extract_profiles(front, fields), fields, params)[:, 0]
    return float((head(aligned).argmax(dim=-1).numpy() == codes)[known].mean())
