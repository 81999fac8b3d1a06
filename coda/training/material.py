"""What heads learn from: tokens of labelled fields, aligned in each of the ways a head is trained for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.config.params import Params
from coda.networks.alignment import TokenStatistics, fit_statistics
from coda.networks.extractor import Extractor
from coda.plates.fieldset import FieldSet
from coda.plates.stored import StoredFields
from coda.training.groups import group_statistics, standardise_groups
from coda.training.head import TokenSet
from coda.training.labels import LabelList
from coda.training.randomness import derived_seed
from coda.training.split import group_names
from coda.training.tokens import extract_tokens, random_crop_tokens


@dataclass(frozen=True)
class Material:
    """Training tokens by epoch and alignment, validation tokens by alignment, and the source's statistics.

    Attributes:
        source: Statistics of the raw training tokens of all wells, for CORAL.
        training: Alignment and epoch -> tokens of the labelled training fields.
        validation: Alignment -> tokens of the labelled held-out fields.
    """

    source: TokenStatistics
    training: Callable[[str, int], TokenSet]
    validation: Callable[[str], TokenSet]


def prepare_material(
    extractor: Extractor,
    training: FieldSet | StoredFields,
    validation: FieldSet | StoredFields,
    labels: LabelList,
    params: Params,
    *,
    seed: int,
) -> Material:
    """Run the frozen extractor over training and held-out fields.

    Statistics of a group (the section `alignment`) are fitted on all of its wells, labelled or not,
    so that a target batch, whose labels nobody knows, can be treated in the same way.

    Args:
        extractor: The served extractor (teacher).
        training: Fields of the training batches.
        validation: Fields of the held-out batches.
        labels: The frozen label list.
        params: Crops, `head`, `alignment` and compute.
        seed: Of the random crops.
    """

    def epoch_tokens(epoch: int) -> Tensor:
        crop_seed = derived_seed(seed, "head crop round", epoch)
        return random_crop_tokens(extractor, training, params, seed=crop_seed, crops=params.head.random_crops)

    first = epoch_tokens(0)
    learn = _Aligned(training, labels.codes(training.table), params, first.transpose(0, 1))
    held = extract_tokens(extractor, validation, params)
    check = _Aligned(validation, labels.codes(validation.table), params, held)
    cached: dict[str, TokenSet] = {}

    def training_tokens(alignment: str, epoch: int) -> TokenSet:
        if epoch and params.head.renew_crops:
            return learn.take(epoch_tokens(epoch).transpose(0, 1), alignment)
        if alignment not in cached:
            cached[alignment] = learn.take(first.transpose(0, 1), alignment)
        return cached[alignment]

    return Material(fit_statistics(first), training_tokens, lambda alignment: check.take(held, alignment))


class _Aligned:
    """Aligns tokens of a set of fields and keeps the labelled ones."""

    def __init__(
        self, fields: FieldSet | StoredFields, codes: NDArray[np.int64], params: Params, tokens: Tensor
    ) -> None:
        by, wells = params.alignment.by, params.alignment.wells
        self.names = group_names(fields.table, by)
        self.statistics = group_statistics(tokens, fields.table, by=by, wells=wells)
        self.rows = np.flatnonzero(codes >= 0)
        self.codes = codes[self.rows]

    def take(self, tokens: Tensor, alignment: str) -> TokenSet:
        """Return labelled fields' tokens; `tokens` has the shape (fields, crops, tokens, width)."""
        chosen = tokens[torch.from_numpy(self.rows)]
        if alignment == "standardise":
            chosen = standardise_groups(chosen, self.names[self.rows], self.statistics)
        return TokenSet(chosen.transpose(0, 1), self.codes)
