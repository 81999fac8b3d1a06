"""What heads learn from: tokens of labelled fields, aligned in each of the ways a head is trained for.

Only tokens of labelled fields are kept, once, as the extractor makes them; they are aligned when a batch is made.
Statistics are summed up over all fields, a few at a time. What is kept beyond `head.tokens_gib` lies in a file.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.config.params import Params
from coda.networks.alignment import RunningStatistics, TokenStatistics
from coda.networks.extractor import Extractor
from coda.plates.disk import writing
from coda.plates.stored import Fields
from coda.training.engine import fields_digest, fingerprint, tensors_digest
from coda.training.groups import GroupStatistics
from coda.training.head import TokenSet
from coda.training.labels import LabelList
from coda.training.randomness import derived_seed
from coda.training.tokens import random_crop_batches, token_batches


@dataclass(frozen=True)
class HeadDataset:
    """Training tokens by alignment and epoch, validation tokens by alignment, and the source's statistics.

    Attributes:
        source: Statistics of the raw training tokens of all wells, for CORAL.
        training: Alignment and epoch -> tokens of the labelled training fields. With ``head.renew_crops`` those of
            another epoch take their place in memory.
        validation: Alignment -> tokens of the labelled held-out fields.
    """

    source: TokenStatistics
    training: Callable[[str, int], TokenSet]
    validation: Callable[[str], TokenSet]


def cache_head_tokens(
    extractor: Extractor, training: Fields, validation: Fields, labels: LabelList, params: Params, *, seed: int
) -> HeadDataset:
    """Run the frozen extractor over training and held-out fields.

    Statistics of a group (the section `alignment`) are fitted on all of its wells, labelled or not, so that a target
    batch, whose labels nobody knows, can be treated in the same way.

    Raises:
        ConfigError: The disk has no room for the tokens that memory may not hold.
    """
    # processes of one machine share its memory
    room = _Room(params.head.tokens_gib / int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    options = [params.crops.model_dump(mode="json"), params.alignment.model_dump(mode="json"), seed]
    made_of = [tensors_digest(extractor.state_dict()), *options]
    check = _Kept(validation, labels.codes(validation.table), params, room, made_of)
    start = 0
    for tokens in token_batches(extractor, validation, params):
        rows = np.arange(start, start + len(tokens))
        start += len(tokens)
        check.groups.add(rows, tokens)
        for number in range(tokens.shape[1]):
            check.keep(number, rows, tokens[:, number], tokens.shape[1])
    learn = _Kept(training, labels.codes(training.table), params, room, made_of)
    source, in_memory = RunningStatistics(), [0]

    def compute(epoch: int, chosen: NDArray[np.bool_], *, sum_up: bool) -> None:
        crops, crop_seed = params.head.random_crops, derived_seed(seed, "head crop round", epoch)
        found = random_crop_batches(extractor, training, params, seed=crop_seed, crops=crops, chosen=chosen)
        for number, rows, tokens in found:
            learn.keep(number, rows.numpy(), tokens, crops)
            if sum_up:
                source.add(tokens)
                learn.groups.add(rows.numpy(), tokens)
        in_memory[0] = epoch

    # apart, so that the labelled ones are computed in the same batches whenever an epoch is made again
    compute(0, learn.labelled, sum_up=True)
    compute(0, ~learn.labelled, sum_up=True)

    def training_tokens(alignment: str, epoch: int) -> TokenSet:
        wanted = epoch if params.head.renew_crops else 0
        if wanted != in_memory[0]:
            compute(wanted, learn.labelled, sum_up=False)
        return learn.tokens(alignment)

    return HeadDataset(source.statistics(), training_tokens, check.tokens)


class _Room:
    """Memory for tokens, up to a limit; beyond it, a file without a name that ends with the process."""

    def __init__(self, gib: float) -> None:
        self._left = int(gib * (1 << 30))

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        size = 4 * int(np.prod(shape))
        if size <= self._left:
            self._left -= size
            return torch.empty(shape)
        folder = Path(tempfile.gettempdir())
        with writing(folder), tempfile.TemporaryFile(dir=folder) as file:
            # asked for at once: a mapped file that finds the disk full while it is written ends the process
            file.truncate(size)
            _reserve(file.fileno(), size)
            return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="r+", shape=shape))


class _Kept:
    """Tokens of the labelled fields of a set, and the statistics of its groups."""

    def __init__(
        self, fields: Fields, codes: NDArray[np.int64], params: Params, room: _Room, made_of: list[object]
    ) -> None:
        self.labelled = codes >= 0
        self.groups = GroupStatistics(fields.table, by=params.alignment.by, wells=params.alignment.wells)
        self._room, self._tokens = room, torch.zeros((1, 0, 1, 1))
        self._codes, self._names = codes[self.labelled], self.groups.names[self.labelled]
        self._places = np.cumsum(self.labelled) - 1
        self._made_of = fingerprint(fields_digest(fields), made_of)

    def keep(self, number: int, rows: NDArray[np.intp], tokens: Tensor, rounds: int) -> None:
        """Keep those of some rows' tokens, of one round, that belong to labelled fields."""
        chosen = self.labelled[rows]
        if not chosen.any():
            return
        if not self._tokens.numel():
            self._tokens = self._room.empty((rounds, len(self._codes), *tokens.shape[1:]))
        self._tokens[number, torch.from_numpy(self._places[rows[chosen]])] = tokens[torch.from_numpy(chosen)]

    def tokens(self, alignment: str) -> TokenSet:
        """Return what is kept, to be aligned when it is used."""
        statistics = self.groups.statistics() if alignment == "standardise" else None
        return TokenSet(self._tokens, self._codes, self._names, statistics, self._made_of)


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
