"""Moments of tokens and the maps built on them: standardisation, rescaling, CORAL. Pure functions; decision 0006."""

from collections.abc import Iterable
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenStatistics:
    """First and second moments over all tokens of a group, in float32.

    Attributes:
        mean: Shape (width,).
        sd: Standard deviation of each channel (population), shape (width,).
        covariance: Shape (width, width); its diagonal is the square of `sd`.
        count: Tokens behind the numbers.
    """

    mean: Tensor
    sd: Tensor
    covariance: Tensor
    count: int

    def to_bytes(self) -> bytes:
        """Return the statistics as a safetensors file."""
        tensors = {"mean": self.mean, "sd": self.sd, "covariance": self.covariance, "count": torch.tensor(self.count)}
        return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})

    @classmethod
    def from_bytes(cls, content: bytes) -> "TokenStatistics":
        """Read what `to_bytes` wrote."""
        tensors = safetensors.torch.load(content)
        return cls(tensors["mean"], tensors["sd"], tensors["covariance"], int(tensors["count"]))


def fit_statistics(tokens: Tensor | Iterable[Tensor]) -> TokenStatistics:
    """Return mean, deviation and covariance over all tokens.

    Args:
        tokens: Shape (..., width), or an iterable of such tensors when not all fit into memory. Sums are float64.

    Raises:
        ValueError: There is no token.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    shift: Tensor | None = None
    for part in _parts(tokens):
        flat = part.reshape(-1, part.shape[-1]).double()
        if not len(flat):
            continue
        # sums are taken around the first part's mean, so that large means do not eat the digits of the variance
        shift = flat.mean(dim=0) if shift is None else shift
        flat = flat - shift
        count += len(flat)
        total = total.to(flat) + flat.sum(dim=0)
        products = products.to(flat) + flat.T @ flat
    if shift is None:
        message = "statistics need at least one token"
        raise ValueError(message)
    offset = total / count
    covariance = products / count - torch.outer(offset, offset)
    sd = covariance.diagonal().clamp_min(0).sqrt()
    return TokenStatistics((shift + offset).float().cpu(), sd.float().cpu(), covariance.float().cpu(), count)


def standardise(tokens: Tensor, stats: TokenStatistics, *, eps: float = 1e-6) -> Tensor:
    """Give every channel mean 0 and deviation 1 by the statistics of the tokens' own group.

    Args:
        tokens: Shape (..., width).
        stats: Statistics of the group the tokens come from.
        eps: Added to the deviation, so that a dead channel stays 0.

    Returns:
        Float32, the shape of `tokens`.
    """
    return (tokens.float() - stats.mean.to(tokens.device)) / (stats.sd.to(tokens.device) + eps)


def rescale(tokens: Tensor, target_stats: TokenStatistics, source_stats: TokenStatistics) -> Tensor:
    """Give every channel the source's mean and deviation, by the statistics of the tokens' own group.

    CORAL without what channels have in common: for a head that was trained on raw tokens.

    Args:
        tokens: Shape (..., width), of the target group.
        target_stats: Statistics of that group.
        source_stats: Statistics of the tokens that the head was trained on.

    Returns:
        Float32, the shape of `tokens`.
    """
    standard = standardise(tokens, target_stats)
    return standard * source_stats.sd.to(tokens.device) + source_stats.mean.to(tokens.device)


def coral(
    tokens: Tensor, target_stats: TokenStatistics, source_stats: TokenStatistics, *, shrinkage: float = 0.01
) -> Tensor:
    """Whiten tokens by their own group and colour them with the source's moments (correlation alignment).

    Args:
        tokens: Shape (..., width), of the target group.
        target_stats: Statistics of that group.
        source_stats: Statistics of the tokens that the head was trained on.
        shrinkage: Share (0..1) of the mean variance on the diagonal of both covariances; keeps whitening finite.

    Returns:
        Float32, the shape of `tokens`.
    """
    whiten = _power(target_stats.covariance, -0.5, shrinkage)
    colour = _power(source_stats.covariance, 0.5, shrinkage)
    matrix = (whiten @ colour).float().to(tokens.device)
    centred = tokens.float() - target_stats.mean.to(tokens.device)
    return centred @ matrix + source_stats.mean.to(tokens.device)


def _parts(tokens: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
    # slices bound the float64 copies to a few MB
    if isinstance(tokens, Tensor):
        flat = tokens.reshape(-1, tokens.shape[-1])
        return [flat[start : start + 65536] for start in range(0, len(flat), 65536)]
    return tokens


def _power(covariance: Tensor, exponent: float, shrinkage: float) -> Tensor:
    width = covariance.shape[0]
    matrix = covariance.double()
    matrix = (1 - shrinkage) * matrix + shrinkage * matrix.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ torch.diag(values.clamp_min(1e-12) ** exponent) @ vectors.T
    return power
