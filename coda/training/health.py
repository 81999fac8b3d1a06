"""Collapse alarms: numbers that show when self-supervision has stopped to tell images apart (paper section 4)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from coda.networks.spread import LIMIT, feature_spread

LOSS_MARGIN, ENTROPY_LIMIT = 0.01, 0.05


@dataclass(frozen=True)
class Health:
    """State of a training run at one iteration.

    Attributes:
        loss_share: Loss over ln(prototypes); pinned at 1, student and teacher are uniform.
        teacher_entropy: Mean entropy of the teacher's distributions over ln(prototypes): 1 is uniform, 0 a point.
        mean_entropy: Entropy of their mean over ln(prototypes): near 0, all images share one prototype.
        feature_spread: Of the pooled features over the batch (`coda.networks.spread`): about 1 when directions are
            used evenly, 0 when all images look alike to the teacher. The gate's number of the same name is the same.
    """

    loss_share: float
    teacher_entropy: float
    mean_entropy: float
    feature_spread: float

    def alarms(self) -> tuple[str, ...]:
        """Return messages about what is wrong; none when all is well."""
        found = []
        if abs(self.loss_share - 1) < LOSS_MARGIN and self.teacher_entropy > 1 - LOSS_MARGIN:
            found.append("the loss is pinned at the logarithm of the number of prototypes: every image looks uniform")
        if self.mean_entropy < ENTROPY_LIMIT:
            found.append("all images fall on one prototype")
        return (*found, *spread_alarms(self.feature_spread, "teacher"))


def spread_of(features: Tensor) -> float:
    """Return the feature spread of pooled features, shape (images, width), on any device."""
    return float(feature_spread(features.detach().float().cpu().numpy()))


def spread_alarms(spread: float, network: str) -> tuple[str, ...]:
    """Say so when a network ('teacher', 'encoder') no longer tells images apart; see `spread_of`."""
    return (f"the {network}'s features are the same for all images",) if spread < LIMIT else ()


@torch.no_grad()
def measure_health(loss: float, teacher_probabilities: Tensor, features: Tensor) -> Health:
    """Return the health of one iteration.

    Args:
        loss: DINO loss.
        teacher_probabilities: Shape (..., prototypes).
        features: Pooled teacher features, shape (images, width).
    """
    q = teacher_probabilities.flatten(0, -2)
    scale = math.log(q.shape[-1])
    entropy = float(torch.special.entr(q).sum(dim=-1).mean()) / scale
    mean_entropy = float(torch.special.entr(q.mean(dim=0)).sum()) / scale
    return Health(loss / scale, entropy, mean_entropy, spread_of(features))
