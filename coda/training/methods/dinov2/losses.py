"""What DINOv2 adds to DINO's loss: iBOT's cross-entropy of hidden patches, and KoLeo."""

import torch
from torch import Tensor
from torch.nn import functional as F

from coda.networks.batch_norm import sum_over_processes
from coda.training.distributed import averaged, world
from coda.training.methods.dino.loss import teacher_probabilities

EPSILON = 1e-8
"""Added to distances, so that the logarithm of two equal features is finite."""


def patch_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    centre: Tensor,
    weights: Tensor,
    views: int,
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Return iBOT's loss, float32: cross-entropy of hidden patches, the mean over a view's patches and over views.

    As in DINOv2, views of which nothing is hidden count as 0.

    Args:
        student_logits: Of the hidden patches, as the student guesses them, shape (hidden patches, prototypes).
        teacher_logits: Of the same patches, as the teacher sees them; no gradient passes through them.
        centre: Moving average of the teacher's patch logits, shape (prototypes,).
        weights: For each patch 1 over the hidden patches of its view, shape (hidden patches,).
        views: Number of global views.
        student_temperature: Positive.
        teacher_temperature: Positive.
    """
    q = teacher_probabilities(teacher_logits, centre, teacher_temperature)
    log_p = F.log_softmax(student_logits.float() / student_temperature, dim=-1)
    return -((q * log_p).sum(dim=-1) * weights).sum() / views


def updated_patch_centre(centre: Tensor, teacher_logits: Tensor, momentum: float) -> Tensor:
    """Return the moving average of the teacher's patch logits, over all processes, after one more batch.

    Processes have other numbers of hidden patches: sums and numbers are averaged, not means.
    """
    logits = teacher_logits.detach().float()
    mean = averaged(logits.sum(dim=0)) / averaged(torch.tensor(float(len(logits)), device=logits.device))
    return centre * momentum + mean * (1 - momentum)


def koleo_loss(features: Tensor) -> Tensor:
    """Return KoLeo (Sablayrolles et al., 2019): minus the mean logarithm of the distance to the nearest other feature.

    It spreads the features of a batch evenly over the sphere. Of several processes the batch is that of all together.

    Args:
        features: This process's, of one crop of each pair, shape (batch, width); any scale, since they are normalised.
    """
    directions = F.normalize(_of_all(features.float()), dim=-1, eps=EPSILON)
    with torch.no_grad():
        similar = directions @ directions.T
        similar.fill_diagonal_(-1)
        nearest = similar.argmax(dim=1)
    return -(F.pairwise_distance(directions, directions[nearest], eps=EPSILON) + EPSILON).log().mean()


def _of_all(features: Tensor) -> Tensor:
    """Return the features of all processes, in order of the processes, with gradients to each one's own."""
    own = world()
    if own.size == 1:
        return features
    nothing = torch.zeros_like(features)
    own_place = [features if rank == own.rank else nothing for rank in range(own.size)]
    return sum_over_processes(torch.cat(own_place))
