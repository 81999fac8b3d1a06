"""DINO's loss over all pairs of a teacher view and another student view (paper section 4), and its centre."""

import torch
from torch import Tensor
from torch.nn import functional as F

from coda.training.distributed import averaged


def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    centre: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Return the mean cross-entropy over every (teacher view i, student view v != i), in float32.

    With Q the sum of the teachers' probabilities, all terms together are ``sum_v <Q, log p_v>`` less the two where a
    view meets itself, so that log-probabilities are computed once a view: 14 terms for 2 global and 6 local views.

    Args:
        student_logits: Shape (views, batch, prototypes); the first views are the teacher's, in the same order.
        teacher_logits: Shape (global views, batch, prototypes); no gradient passes through them.
        centre: Shape (prototypes,).
        student_temperature: Positive.
        teacher_temperature: Positive.

    Returns:
        A scalar; ln(prototypes) when every distribution is uniform.
    """
    views, batch, _ = student_logits.shape
    globals_ = teacher_logits.shape[0]
    log_p = F.log_softmax(student_logits.float() / student_temperature, dim=-1)
    q = teacher_probabilities(teacher_logits, centre, teacher_temperature)
    every = torch.einsum("bk,vbk->", q.sum(dim=0), log_p)
    itself = (q * log_p[:globals_]).sum()
    return -(every - itself) / (globals_ * (views - 1) * batch)


def teacher_probabilities(teacher_logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Return the centred, sharpened distributions of the teacher, float32, without gradient."""
    return F.softmax((teacher_logits.detach().float() - centre.float()) / temperature, dim=-1)


def updated_centre(centre: Tensor, teacher_logits: Tensor, momentum: float) -> Tensor:
    """Return the moving average of the teacher's logits, over all processes, after one more batch.

    It is moved after the loss, as in DINO.
    """
    mean = averaged(teacher_logits.detach().float().flatten(0, -2).mean(dim=0))
    return centre * momentum + mean * (1 - momentum)
