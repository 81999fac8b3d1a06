"""The vectorised loss against a loop over all 14 terms, and the centre against its definition."""

import math

import pytest
import torch

from coda.training.methods.dino.loss import dino_loss, teacher_probabilities, updated_centre


def loss_by_terms(student, teacher, centre, tau_s, tau_t):
    """Section 2.1 as written: one cross-entropy a pair of different views, in float64, without any library softmax."""
    total, terms = 0.0, 0
    for i in range(len(teacher)):
        for v in range(len(student)):
            if v == i:
                continue
            terms += 1
            per_sample = []
            for t, s in zip(teacher[i], student[v], strict=True):
                q = [math.exp(x) for x in ((t - centre) / tau_t).tolist()]
                p = [math.exp(x) for x in (s / tau_s).tolist()]
                per_sample.append(-sum(a / sum(q) * math.log(b / sum(p)) for a, b in zip(q, p, strict=True)))
            total += sum(per_sample) / len(per_sample)
    return total / terms, terms


@pytest.mark.parametrize("views", [2, 5, 8])
def test_equals_the_sum_over_pairs_of_views(views):
    g = torch.Generator().manual_seed(views)
    student = torch.randn(views, 3, 7, generator=g, dtype=torch.float64)
    teacher = torch.randn(2, 3, 7, generator=g, dtype=torch.float64)
    centre = torch.randn(7, generator=g, dtype=torch.float64)
    expected, terms = loss_by_terms(student, teacher, centre, 0.5, 0.3)
    found = dino_loss(student, teacher, centre, student_temperature=0.5, teacher_temperature=0.3)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert terms == 2 * (views - 1)  # 14 for the paper's 8 views


def test_uniform_distributions_give_the_logarithm_of_the_prototypes():
    zeros = torch.zeros(8, 4, 4096)
    loss = dino_loss(zeros, zeros[:2], torch.zeros(4096), student_temperature=0.1, teacher_temperature=0.04)
    # a float32 sum of 131,072 terms, whose order differs between machines
    assert float(loss) == pytest.approx(math.log(4096), rel=1e-4)


def test_the_teacher_gets_no_gradient():
    student, teacher = torch.randn(4, 2, 5, requires_grad=True), torch.randn(2, 2, 5, requires_grad=True)
    dino_loss(student, teacher, torch.zeros(5), student_temperature=0.1, teacher_temperature=0.04).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_loss_is_float32_for_bfloat16_logits():
    logits = torch.randn(4, 2, 5, dtype=torch.bfloat16)
    loss = dino_loss(logits, logits[:2], torch.zeros(5), student_temperature=0.1, teacher_temperature=0.04)
    assert loss.dtype == torch.float32


def test_centre_is_a_moving_average_over_both_global_views():
    teacher = torch.arange(12, dtype=torch.float32).view(2, 3, 2)
    found = updated_centre(torch.tensor([1.0, 1.0]), teacher, 0.9)
    assert found.tolist() == pytest.approx([0.9 + 0.1 * 5.0, 0.9 + 0.1 * 6.0])


def test_centring_lowers_what_is_common():
    q = teacher_probabilities(torch.tensor([[[2.0, 0.0]]]), torch.tensor([2.0, 0.0]), 0.04)
    assert q.flatten().tolist() == pytest.approx([0.5, 0.5])
