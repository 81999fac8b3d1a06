"""Epochs are epochs: every sample is seen as often as there are epochs, whatever its number and the batch size."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.config.params import OptimizerConfig
from coda.networks.extractor import new_extractor
from coda.training.head import TokenSet, train_head
from coda.training.pairs import PairSampler
from coda.training.passes import passes
from coda.training.schedules import length_of

BUDGET = {
    "iterations": None, "learning_rate": 0.1, "learning_rate_end": 0.0, "warmup_epochs": 0.0,
    "weight_decay_start": 0.0, "weight_decay_end": 0.0, "clip_norm": 1.0, "checkpoint_every": 9,
}  # fmt: skip


def budget(epochs, size):
    return OptimizerConfig(epochs=float(epochs), batch_size=size, **BUDGET)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 70), size=st.integers(1, 40), epochs=st.integers(1, 6))
def test_every_sample_is_seen_once_an_epoch(count, size, epochs):
    length = length_of(budget(epochs, size), count)
    seen, batches = Counter(), []
    for iteration in range(length.iterations):
        parts = passes(iteration, size, count, seed=1, use="test")
        batches.append(sum(len(samples) for _, samples in parts))
        seen.update((epoch, sample) for epoch, samples in parts for sample in samples.tolist())
    assert set(batches) == {size}
    assert set(seen.values()) == {1}
    whole = Counter(sample for _, sample in seen)
    # the number of iterations is rounded, by half a batch at most
    assert abs(sum(whole.values()) - epochs * count) <= max(size / 2, size - count * epochs)
    assert max(whole.values()) - min(whole.get(n, 0) for n in range(count)) <= 1


def test_fifty_epochs_of_a_head_are_fifty_passes_over_130_samples(tiny, monkeypatch):
    """They were 25.5: two batches were counted an epoch, and iterations for 130/128 of one."""
    seen = Counter()
    tokens = torch.arange(130.0)[None, :, None, None].expand(1, 130, 5, 16).contiguous()
    data = TokenSet(tokens, np.arange(130) % 2)
    params = tiny("head.budget.iterations=null", "head.budget.epochs=50", "head.budget.batch_size=128",
                  "head.budget.warmup_epochs=0", "head.plateau_patience=1000")  # fmt: skip
    monkeypatch.setattr(
        "coda.networks.head.Head.forward",
        lambda self, inputs: (
            (seen.update(inputs[:, 0, 0].tolist()) if self.training else None) or self.classifier(inputs[:, 0])
        ),
    )
    held = TokenSet(tokens[:, :4].clone(), data.codes[:4])
    train_head(lambda _epoch: data, held, new_extractor(params, seed=0), params,
               classes=("a", "b"), alignment="none", seed=1)  # fmt: skip
    assert sum(seen.values()) / 130 == pytest.approx(50, abs=0.5)
    assert set(seen.values()) <= {50, 51}


@pytest.mark.parametrize("size", [6, 7, 96])
def test_dino_and_the_masked_autoencoder_count_epochs_in_the_same_way(make_table, tiny, size):
    sampler = PairSampler(make_table(48), tiny().pairs.model_copy(update={"by": "none"}))
    length = length_of(budget(5, size), sampler.fields_per_epoch)
    seen = Counter(row for i in range(length.iterations) for row in sampler.batch(0, i, size)[0].tolist())
    assert abs(sum(seen.values()) - 5 * 48) <= size / 2
    assert max(seen.values()) - min(seen.get(n, 0) for n in range(48)) <= 1
