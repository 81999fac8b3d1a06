"""Serving: fields through one extractor, the alignment, and the frozen heads; a few fields in memory at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.config.served_params import ServedAs, Views
from coda.contracts.recipe import Alignment
from coda.errors import ConfigError, Problem
from coda.networks.alignment import ALIGN, TokenStatistics, fit_statistics
from coda.networks.classical_head import ClassicalHead
from coda.networks.extractor import Extractor
from coda.networks.head import Head
from coda.networks.profile import Profile
from coda.plates.stored import Fields
from coda.training.groups import group_statistics
from coda.training.profiles import as_tokens, extract_profiles
from coda.training.split import batch_names, group_names
from coda.training.tokens import field_features, field_probabilities, token_batches


@dataclass(frozen=True)
class Way:
    """What happens between an extractor and the answer.

    Attributes:
        name: Name of the candidate.
        alignment: What is done to the tokens.
        head: Frozen head.
        source: Statistics of the tokens the head was trained on; CORAL needs them.
    """

    name: str
    alignment: Alignment
    head: Head | ClassicalHead
    source: TokenStatistics


@dataclass(frozen=True)
class Served:
    """Answers of one way.

    Attributes:
        probabilities: Shape (fields, classes), the mean over evaluation crops.
        features: Shape (fields, width): the aligned class token or mean of tokens, mean over crops.
    """

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Service:
    """What one extractor makes of a set of fields.

    Attributes:
        statistics: Token statistics of each group (``source/batch`` or ``source/batch/plate``).
        features: Shape (fields, width): the raw class token or mean of tokens, mean over crops.
        ways: Name -> answers.
    """

    statistics: Mapping[str, TokenStatistics]
    features: NDArray[np.float32]
    ways: Mapping[str, Served]


def serve(
    extractor: Extractor | Profile,
    ways: Sequence[Way],
    fields: Fields,
    params: ServedAs,
    *,
    pool: Literal["cls", "mean"] | None = None,
    statistics: Mapping[str, TokenStatistics] | None = None,
    profiles: NDArray[np.float32] | None = None,
) -> Service:
    """Predict every field in each of several ways with one extractor.

    The extractor runs twice: once for the statistics of each group, once for the answers. That keeps a few fields'
    tokens in memory, where those of one 384-well plate at full scale would take a gigabyte. No forward pass holds
    fields of two batches, so that a batch has the same answers to the last bit whatever is served beside it.

    Args:
        extractor: Extractor of the release or the adapted one; or the profile that a classical head reads, which is
            measured once, since that of all fields takes less memory than the tokens of a few.
        ways: Ways of serving.
        fields: Fields with the extractor's stains.
        params: Crops, compute, and `alignment`: the group that statistics are fitted on.
        pool: What of the tokens features are; what the extractor was trained for when not given.
        statistics: Token statistics of each group; fitted on the fields when not given.
        profiles: Profiles of the fields, shape (fields, width), where they are measured already.

    Raises:
        ConfigError: There are no fields, or their stains are not the extractor's.
    """
    if not len(fields):
        problem = Problem("dataset", "no accepted field", "at least one", "Read the quality report of the batch.")
        raise ConfigError("There is nothing to predict.", [problem])
    names = group_names(fields.table, params.alignment.by)
    groups = params.alignment
    if isinstance(extractor, Profile):
        whole = extract_profiles(extractor, fields) if profiles is None else as_tokens(profiles)
        fitted = statistics or group_statistics(whole, fields.table, by=groups.by, wells=groups.wells)
        found: Iterator[Tensor] = (whole[part] for part in _batches(fields))
    else:
        fitted = statistics or fit_groups(extractor, fields, params, names=names, wells=groups.wells)
        found = _tokens_by_batch(extractor, fields, params)
    pool = pool or extractor.pool
    raw: list[NDArray[np.float32]] = []
    parts: dict[str, list[Served]] = {way.name: [] for way in ways}
    start = 0
    for tokens in found:
        own = names[start : start + len(tokens)]
        start += len(tokens)
        raw.append(field_features(tokens, pool).numpy())
        for way in ways:
            aligned = align(tokens, own, fitted, way.source, way.alignment)
            answers = field_probabilities(way.head, aligned, params)
            parts[way.name].append(Served(answers, field_features(aligned, pool).numpy()))
    joined = {
        name: Served(
            np.concatenate([part.probabilities for part in own]), np.concatenate([part.features for part in own])
        )
        for name, own in parts.items()
    }
    return Service(fitted, np.concatenate(raw), joined)


def _tokens_by_batch(extractor: Extractor, fields: Fields, params: Views) -> Iterator[Tensor]:
    for part in _batches(fields):
        yield from token_batches(extractor, fields.take(part), params)


def _batches(fields: Fields) -> list[NDArray[np.intp]]:
    """Return the rows of each batch that lie together."""
    batches = batch_names(fields.table)
    return np.split(np.arange(len(fields)), np.flatnonzero(batches[1:] != batches[:-1]) + 1)


def fit_groups(
    extractor: Extractor,
    fields: Fields,
    params: Views,
    *,
    names: NDArray[np.str_],
    wells: Literal["all", "negcon"],
) -> dict[str, TokenStatistics]:
    """Fit token statistics on each group of fields.

    Args:
        extractor: Extractor whose tokens are meant.
        fields: All fields.
        params: Crops and compute.
        names: Group of each field.
        wells: All wells, or negative controls only; a group without them uses all of its wells.
    """
    controls = (fields.table["Metadata_pert_type"] == "negcon").to_numpy()
    statistics = {}
    for name in np.unique(names):
        rows = names == name
        if wells == "negcon" and (rows & controls).any():
            rows = rows & controls
        statistics[str(name)] = fit_statistics(token_batches(extractor, fields.take(np.flatnonzero(rows)), params))
    return statistics


def align(
    tokens: Tensor,
    names: NDArray[np.str_],
    statistics: Mapping[str, TokenStatistics],
    source: TokenStatistics,
    alignment: Alignment,
) -> Tensor:
    """Bring tokens into the frame that the head was trained in (decision 0006).

    Args:
        tokens: Shape (fields, crops, tokens, width).
        names: Group of each field.
        statistics: Statistics of each group.
        source: Statistics of the head's training tokens; used by 'rescale' and 'coral'.
        alignment: 'none', 'standardise' (by the own group), 'rescale' (standardised by the own group, then given the
            source's mean and standard deviation), or 'coral' (whitened by the own group, coloured by the source).

    Returns:
        Float32, the shape of `tokens`.
    """
    if alignment == "none":
        return tokens.float()
    aligned = torch.empty_like(tokens, dtype=torch.float32)
    for name, rows in _by_group(names):
        # a head of before 0017 was trained on tokens aligned by one set of moments
        own = statistics[name].like(source)
        aligned[rows] = ALIGN[alignment](tokens[rows], own, source)
    return aligned


def _by_group(names: NDArray[np.str_]) -> Iterator[tuple[str, Tensor]]:
    for name in np.unique(names):
        yield str(name), torch.from_numpy(np.flatnonzero(names == name))
