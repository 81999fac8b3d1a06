"""NaN and infinity while an extractor is adapted, or while one image is learned from."""

import numpy as np
import pytest
from broken_numbers import check_divergence, faults

from coda.adaptation.coda import adapt_extractor
from coda.adaptation.pairing_policy import choose_pairing
from coda.adaptation.ttt import predict_with_ttt
from coda.networks.head import new_head
from coda.training.methods.mae.state import new_mae_state

TTT = (
    "mae.decoder_width=8", "mae.decoder_depth=1", "mae.decoder_heads=2", "mae.mask_ratio=0.5", "ttt.steps=3",
    "ttt.copies=6", "ttt.checkpoint_every=2", "crops.eval_grid=1",
)  # fmt: skip


def named(fault):
    return f"{fault.place}-{fault.value}-{fault.at}"


@pytest.mark.parametrize("fault", faults(8), ids=named)
@pytest.mark.parametrize("part", ["all", "low_rank"])
def test_adaptation_with_a_watch(tiny, make_base, make_plates, tmp_path, fault, part):
    params = tiny("adaptation.stopping.every=4", "adaptation.stopping.criterion=marginal_entropy",
                  "adaptation.stopping.patience=9", f"adaptation.trainable={part}")  # fmt: skip
    fields = make_plates()
    pairing = choose_pairing(fields.table, min_pairable_share=0.5)

    def train(checkpoints):
        base = make_base()
        result = adapt_extractor(base.state, fields, params, pairing, seed=1, heads=base.heads, checkpoints=checkpoints)
        tensors = result.state.state_dict()
        return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}, result.stopping

    check_divergence(train, fault, tmp_path, "coda.training.methods.dino.objective.dino_loss",
                     "adaptation.budget.learning_rate", part)  # fmt: skip


@pytest.mark.parametrize("fault", faults(21), ids=named)
def test_test_time_training(tiny, make_plates, tmp_path, fault):
    """A step that breaks spoils the answer for its own image; it is never kept."""
    params, fields = tiny(*TTT), make_plates().take(np.arange(7))

    def train(checkpoints):
        state = new_mae_state(params, seed=1)
        head = new_head(params, state.encoder, ("a", "b", "c"), "none", seed=2)
        return predict_with_ttt(state, head, fields, params, seed=0, checkpoints=checkpoints).tolist()

    check_divergence(train, fault, tmp_path, "coda.adaptation.ttt.mae_loss", "ttt.learning_rate")
