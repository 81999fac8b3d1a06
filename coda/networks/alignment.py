"""Moments of tokens and the maps built on them: standardise, rescale, CORAL. Pure functions; decisions 0006, 0017.

The class token is made by another path than the patches and has other moments; it is also what the head reads. So each
of the two is aligned by its own. Statistics of before 0017 have one set over all tokens, and heads that were trained on
tokens aligned by it are served with it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor

from coda.contracts.recipe import Alignment

SETS = ("all", "class_token", "patches")
"""Sets of moments in a file; one of before 0017 has the first, under names without a prefix."""

NAMES = ("mean", "sd", "covariance", "count")


@dataclass(frozen=True)
class Moments:
    """First and second moments of a set of tokens, in float32.

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


@dataclass(frozen=True)
class TokenStatistics(Moments):
    """Moments over all tokens of a group, and of its class tokens and patches apart.

    Attributes:
        class_token: Of the class tokens; None where there is one set only.
        patches: Of the patches; None likewise.
    """

    class_token: Moments | None = None
    patches: Moments | None = None

    @property
    def separate(self) -> bool:
        """Whether class token and patches have moments of their own."""
        return self.class_token is not None and self.patches is not None

    def like(self, other: "TokenStatistics") -> "TokenStatistics":
        """Return these statistics with the sets that the other one has: one set, where it has no more."""
        return self if other.separate else TokenStatistics(self.mean, self.sd, self.covariance, self.count)

    def to_bytes(self) -> bytes:
        """Return the statistics as a safetensors file."""
        sets = zip(SETS, (self, self.class_token, self.patches), strict=True)
        named = {f"{name}.": moments for name, moments in sets if moments is not None}
        if not self.separate:
            # as before 0017, so that whatever could read such a file still can, and nothing mistakes one for the other
            named = {"": self}
        tensors = {
            f"{prefix}{name}": torch.as_tensor(getattr(moments, name)).contiguous()
            for prefix, moments in named.items()
            for name in NAMES
        }
        return safetensors.torch.save(tensors)

    @classmethod
    def from_bytes(cls, content: bytes) -> "TokenStatistics":
        """Read what `to_bytes` wrote, in this version or before 0017.

        Raises:
            KeyError: A set of moments is not whole.
        """
        tensors = safetensors.torch.load(content)

        def values(prefix: str) -> tuple[Tensor, Tensor, Tensor, int]:
            mean, sd, covariance, count = (tensors[f"{prefix}{name}"] for name in NAMES)
            return mean, sd, covariance, int(count)

        if "mean" in tensors:
            return cls(*values(""))
        every, class_token, patches = (values(f"{name}.") for name in SETS)
        return cls(*every, Moments(*class_token), Moments(*patches))


class _Sums:
    """Sums behind moments, in float64, around a shift that keeps the digits of the variance."""

    def __init__(self, shift: Tensor) -> None:
        self.shift, self.count = shift, 0
        self.total, self.products = torch.zeros_like(shift), torch.zeros(len(shift), len(shift)).to(shift)

    def add(self, tokens: Tensor) -> None:
        flat = tokens.reshape(-1, tokens.shape[-1]).double() - self.shift
        self.count += len(flat)
        self.total = self.total + flat.sum(dim=0)
        self.products = self.products + flat.T @ flat

    def without(self, other: "_Sums") -> "_Sums":
        rest = _Sums(self.shift)
        rest.count, rest.total = self.count - other.count, self.total - other.total
        rest.products = self.products - other.products
        return rest

    def moments(self) -> tuple[Tensor, Tensor, Tensor, int]:
        offset = self.total / self.count
        covariance = self.products / self.count - torch.outer(offset, offset)
        sd = covariance.diagonal().clamp_min(0).sqrt()
        return (self.shift + offset).float().cpu(), sd.float().cpu(), covariance.float().cpu(), self.count


class RunningStatistics:
    """Moments of tokens that are given a few at a time, so that no more of them need be in memory."""

    def __init__(self) -> None:
        """Begin without a token."""
        self._every: _Sums | None = None
        self._class_token: _Sums | None = None

    def add(self, tokens: Tensor) -> None:
        """Take in tokens, shape (..., 1 + patches, width), or (tokens, width); see `fit_statistics`."""
        if not tokens.numel():
            return
        if self._every is None:
            # sums are taken around the first part's mean, so that large means do not eat the digits of the variance
            shift = tokens.reshape(-1, tokens.shape[-1]).double().mean(dim=0)
            self._every = _Sums(shift)
            self._class_token = _Sums(shift) if tokens.ndim > 2 and tokens.shape[-2] > 1 else None
        self._every.add(tokens)
        if self._class_token is not None:
            self._class_token.add(tokens[..., 0, :])

    def statistics(self) -> TokenStatistics:
        """Return the moments of all tokens so far.

        Raises:
            ValueError: There was none.
        """
        if self._every is None:
            message = "statistics need at least one token"
            raise ValueError(message)
        if self._class_token is None:
            return TokenStatistics(*self._every.moments())
        patches = self._every.without(self._class_token)
        own = (Moments(*self._class_token.moments()), Moments(*patches.moments()))
        return TokenStatistics(*self._every.moments(), *own)


def fit_statistics(tokens: Tensor | Iterable[Tensor]) -> TokenStatistics:
    """Return mean, standard deviation and covariance over all tokens, of class tokens and of patches.

    Args:
        tokens: Shape (..., 1 + patches, width), class token first, or an iterable of such tensors when not all fit into
            memory. Of a shape (tokens, width) nobody can tell which is which: there is one set. Sums are float64.

    Raises:
        ValueError: There is no token.

    Example:
        >>> tokens = torch.tensor([[[1.0, 10.0], [0.0, 0.0]], [[3.0, 30.0], [2.0, 4.0]]])  # two fields of two tokens
        >>> fit_statistics(tokens).class_token.mean
        tensor([ 2., 20.])
    """
    running = RunningStatistics()
    for part in _parts(tokens):
        running.add(part)
    return running.statistics()


def standardise(tokens: Tensor, stats: TokenStatistics, *, eps: float = 1e-6) -> Tensor:
    """Give every channel mean 0 and standard deviation 1 by the statistics of the tokens' own group.

    Args:
        tokens: Shape (..., 1 + patches, width), class token first; (..., width) where the statistics are one set.
        stats: Statistics of the group the tokens come from.
        eps: Added to the standard deviation, so that a dead channel stays 0.

    Returns:
        Float32, the shape of `tokens`.

    Example:
        >>> tokens = torch.tensor([[[1.0, 10.0], [0.0, 0.0]], [[3.0, 30.0], [2.0, 4.0]]])
        >>> standardise(tokens, fit_statistics(tokens))[:, 0].round()
        tensor([[-1., -1.],
                [ 1.,  1.]])
    """

    def by(own: Moments, _: Moments, part: Tensor) -> Tensor:
        return (part.float() - own.mean.to(part.device)) / (own.sd.to(part.device) + eps)

    return _each(by, tokens, stats, stats)


def rescale(tokens: Tensor, target_stats: TokenStatistics, source_stats: TokenStatistics) -> Tensor:
    """Give every channel the source's mean and standard deviation, by the statistics of the tokens' own group.

    CORAL without what channels have in common: for a head that was trained on raw tokens.

    Args:
        tokens: Shape (..., 1 + patches, width), of the target group; see `standardise`.
        target_stats: Statistics of that group, with the sets of the source's.
        source_stats: Statistics of the tokens that the head was trained on.

    Returns:
        Float32, the shape of `tokens`.
    """

    def by(own: Moments, source: Moments, part: Tensor) -> Tensor:
        standard = (part.float() - own.mean.to(part.device)) / (own.sd.to(part.device) + 1e-6)
        return standard * source.sd.to(part.device) + source.mean.to(part.device)

    return _each(by, tokens, target_stats, source_stats)


def coral(
    tokens: Tensor, target_stats: TokenStatistics, source_stats: TokenStatistics, *, shrinkage: float = 0.01
) -> Tensor:
    """Whiten tokens by their own group and colour them with the source's moments (correlation alignment).

    Args:
        tokens: Shape (..., 1 + patches, width), of the target group; see `standardise`.
        target_stats: Statistics of that group, with the sets of the source's.
        source_stats: Statistics of the tokens that the head was trained on.
        shrinkage: Share (0..1) of the mean variance on the diagonal of both covariances; keeps whitening finite. Where
            class token and patches are apart, at least width / (width + tokens): of class tokens there are few.

    Returns:
        Float32, the shape of `tokens`.
    """
    apart = target_stats.separate and source_stats.separate

    def share(moments: Moments) -> float:
        width = len(moments.mean)
        return max(shrinkage, width / (width + moments.count)) if apart else shrinkage

    def by(own: Moments, source: Moments, part: Tensor) -> Tensor:
        whiten = _power(own.covariance, -0.5, share(own))
        colour = _power(source.covariance, 0.5, share(source))
        matrix = (whiten @ colour).float().to(part.device)
        return (part.float() - own.mean.to(part.device)) @ matrix + source.mean.to(part.device)

    return _each(by, tokens, target_stats, source_stats)


def _each(
    by: Callable[[Moments, Moments, Tensor], Tensor], tokens: Tensor, own: TokenStatistics, source: TokenStatistics
) -> Tensor:
    """Align class token and patches each by its own moments; all by one set where one of the two has no more."""
    if own.class_token is None or own.patches is None or source.class_token is None or source.patches is None:
        return by(own, source, tokens)
    class_token = by(own.class_token, source.class_token, tokens[..., :1, :])
    return torch.cat([class_token, by(own.patches, source.patches, tokens[..., 1:, :])], dim=-2)


def _parts(tokens: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
    # slices bound the float64 copies to a few MB
    if not isinstance(tokens, Tensor):
        return tokens
    if tokens.ndim == 2:
        return tokens.split(65536)  # type: ignore[no-untyped-call, no-any-return]
    flat = tokens.flatten(0, -3)
    return flat.split(max(1, 65536 // max(1, flat.shape[-2])))  # type: ignore[no-untyped-call, no-any-return]


def _power(covariance: Tensor, exponent: float, shrinkage: float) -> Tensor:
    width = covariance.shape[0]
    matrix = covariance.double()
    matrix = (1 - shrinkage) * matrix + shrinkage * matrix.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ torch.diag(values.clamp_min(1e-12) ** exponent) @ vectors.T
    return power


ALIGN: Mapping[Alignment, Callable[[Tensor, TokenStatistics, TokenStatistics], Tensor]] = {
    "none": lambda tokens, _own, _source: tokens.float(),
    "standardise": lambda tokens, own, _source: standardise(tokens, own),
    "rescale": rescale,
    "coral": coral,
}
"""Alignment -> what it makes of tokens, by the statistics of their own group and of the head's training tokens."""
