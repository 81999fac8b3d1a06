"""Terms beside DINO's loss that keep the frozen head usable (`coda.training.hooks.Regularizer`); none is in the paper.

Two anchors hold the student near the released extractor, without source images: by its weights, or by the moments of
its tokens. Diversity reads the frozen head. Nothing here takes a mechanism of a field.
"""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from coda.networks.alignment import TokenStatistics
from coda.networks.runtime import Runtime
from coda.training.hooks import TrainableSubset

FLOOR = 1e-6
"""Added to variances and probabilities, so that a dead channel or class has a finite logarithm."""


class L2SP:
    """Half the squared distance of the weights that learn to the released extractor's (L2-SP; Li et al., 2018)."""

    name = "weight_anchor"

    def __init__(
        self, student: nn.Module, trainable: TrainableSubset, released: Mapping[str, Tensor], *, strength: float
    ) -> None:
        """Remember where the weights that learn should stay.

        Args:
            student: The student, on its device, after `trainable` chose what learns.
            trainable: Says which weights the student computes with where these are not its own.
            released: Weights of the released extractor by the student's names.
            strength: Factor of the term; its gradient pulls every weight back by strength times its distance.
        """
        self.strength = strength
        self._trainable = trainable
        self._own = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
        names = [*self._own, *trainable.weights()]
        devices = {name: weight.device for name, weight in student.named_parameters()}
        self._released = {name: released[name].detach().clone().to(devices[name]) for name in names}

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return ``strength / 2`` times the sum of squared differences; `tokens` only say on which device."""
        learned = {**self._own, **self._trainable.weights()}
        total = torch.zeros((), device=tokens.device)
        for name, weight in learned.items():
            total = total + (weight - self._released[name]).square().sum()
        return self.strength / 2 * total


class MomentMatching:
    """Distance of the tokens' moments, channel by channel, to those of the source's tokens."""

    name = "feature_anchor"

    def __init__(self, source: TokenStatistics, *, strength: float) -> None:
        """Remember the source's moments, which are kept beside every head of a release."""
        self.strength, self.source = strength, source

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return the mean over channels of two squared distances, of means and of logarithms of standard deviations.

        The means' difference counts in standard deviations of the source. Moments are those of the mini-batch.

        Args:
            tokens: Float32, shape (..., width).
        """
        flat = tokens.reshape(-1, tokens.shape[-1])
        mean, sd = self.source.mean.to(flat.device), self.source.sd.to(flat.device)
        shift = (flat.mean(dim=0) - mean) / (sd + FLOOR)
        stretch = (flat.var(dim=0, correction=0) + FLOOR).log() / 2 - (sd.square() + FLOOR).log() / 2
        return self.strength * (shift.square() + stretch.square()).mean()


class MarginalKL:
    """KL divergence of the frozen head's mean prediction over a mini-batch from a class prior (half of SHOT).

    It keeps the head from predicting few classes. It assumes the prior: where the plates hold other shares of the
    mechanisms than the prior says, it pushes predictions to the wrong ones.
    """

    name = "diversity"

    def __init__(
        self,
        head: nn.Module,
        prior: Tensor,
        *,
        standardise: bool,
        strength: float,
        separate: bool = True,
        runtime: Runtime | None = None,
    ) -> None:
        """Keep the head as it is: it is read, its weights have no gradients.

        Args:
            head: Frozen, in evaluation mode; moved to the device of the tokens.
            prior: Expected share of each class, in the order of the logits; positive, sum 1.
            standardise: Give every channel of the tokens mean 0 and standard deviation 1 over the mini-batch first, for
                a head that was trained on such tokens.
            strength: Factor of the term.
            separate: Standardise class token and patches apart, as the head's training tokens were; else by one set.
            runtime: Precision of the head's forward pass; float32 when not given.
        """
        self.strength, self.standardise, self.separate, self._runtime = strength, standardise, separate, runtime
        self._head = head.requires_grad_(requires_grad=False).eval()
        self._prior = prior

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return strength times the divergence, 0 where the mean prediction is the prior.

        Args:
            tokens: Float32, shape (batch, 1 + patches, width).
        """
        self._head.to(tokens.device)
        mean = self.mean_prediction(tokens)
        prior = self._prior.to(tokens.device)
        return self.strength * (mean * ((mean + FLOOR).log() - (prior + FLOOR).log())).sum()

    def mean_prediction(self, tokens: Tensor) -> Tensor:
        """Return the mean of the head's probabilities over the mini-batch, shape (classes,)."""
        if self.standardise:
            sets = [tokens[:, :1], tokens[:, 1:]] if self.separate else [tokens]
            tokens = torch.cat([_standard(part) for part in sets], dim=1)
        with self._runtime.autocast() if self._runtime else nullcontext():
            logits: Tensor = self._head(tokens)
        return logits.float().softmax(dim=-1).mean(dim=0)


def _standard(tokens: Tensor) -> Tensor:
    """Give every channel mean 0 and standard deviation 1 over the mini-batch, with gradients."""
    flat = tokens.reshape(-1, tokens.shape[-1])
    return (tokens - flat.mean(dim=0)) / (flat.std(dim=0, correction=0) + FLOOR)
