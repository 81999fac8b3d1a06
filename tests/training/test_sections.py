"""Who reads which section of the parameters: a key that is read by nobody it belongs to would be ignored in silence."""

import pytest
from reading import Reading

from coda.adaptation.coda import adapt_extractor
from coda.adaptation.pairing_policy import PairingPolicy
from coda.adaptation.references import reference_features
from coda.adaptation.serving import serve
from coda.adaptation.ttt import predict_with_ttt
from coda.networks.extractor import new_extractor
from coda.networks.head import new_head
from coda.training.head import TokenSet, train_head
from coda.training.head_dataset import cache_head_tokens
from coda.training.labels import LabelList
from coda.training.methods.dino.state import new_state
from coda.training.methods.dino.training import train_dino
from coda.training.methods.mae.state import new_mae_state
from coda.training.methods.mae.training import train_mae
from coda.training.supervised import train_supervised
from coda.training.tokens import extract_tokens

LABELS = LabelList({f"compound_{n}": f"moa_{n % 2}" for n in range(4)})
SHORT = ("pretrain.iterations=2", "adaptation.budget.iterations=2", "head.budget.iterations=2", "ttt.steps=1",
         "supervised.iterations=2", "mae.pretrain.iterations=2", "ttt.copies=4")  # fmt: skip


def pretraining(params, fields, plain):
    train_dino(fields, params, plain.pretrain, state=new_state(plain, seed=0), seed=0)


def new_states(params, fields, plain):
    new_state(params, seed=0)


def adaptation(params, fields, plain):
    adapt_extractor(new_state(plain, seed=0), fields, params, PairingPolicy("oda", "none", 0.0, ""), seed=0)


def head_training(params, fields, plain):
    extractor = new_extractor(plain, seed=0)
    tokens, codes = extract_tokens(extractor, fields, plain).transpose(0, 1), LABELS.codes(fields.table)
    train_head(
        lambda _epoch: TokenSet(tokens, codes), TokenSet(tokens, codes), extractor, params,
        classes=LABELS.classes, alignment="none", seed=0,
    )  # fmt: skip


def cached(params, fields, plain):
    found = cache_head_tokens(new_extractor(plain, seed=0), fields, fields, LABELS, params, seed=0)
    found.training("standardise", 0)


def supervised(params, fields, plain):
    train_supervised(fields, fields, LABELS, params, seed=0)


def masked_autoencoder(params, fields, plain):
    train_mae(fields, params, plain.mae.pretrain, state=new_mae_state(plain, seed=0), seed=0)


def test_time_training(params, fields, plain):
    state = new_mae_state(plain, seed=0)
    head = new_head(plain, state.encoder, LABELS.classes, "none", seed=0)
    predict_with_ttt(state, head, fields.take(fields.table.index.to_numpy() < 2), params, seed=0)


test_time_training.__test__ = False  # type: ignore[attr-defined]


def serving(params, fields, plain):
    serve(new_extractor(plain, seed=0), [], fields, params)


def references(params, fields, plain):
    reference_features(fields, new_extractor(plain, seed=0).config, params, seed=0)


READS = {
    pretraining: {"crops", "pairs", "dino", "compute"},
    new_states: {"extractor", "crops", "dino"},
    adaptation: {"adaptation", "ssl", "extractor", "crops", "pairs", "dino", "compute"},
    head_training: {"head", "extractor", "crops", "compute"},
    cached: {"head", "alignment", "crops", "compute"},
    supervised: {"supervised", "extractor", "crops", "compute"},
    masked_autoencoder: {"mae", "crops", "pairs", "compute"},
    test_time_training: {"ttt", "mae", "crops", "compute"},
    serving: {"alignment", "crops", "compute"},
    references: {"crops", "compute"},
}
"""Trainer -> sections that it reads of the parameters it is given; its own budget is given to DINO and MAE apart."""


@pytest.mark.parametrize("trainer", list(READS), ids=lambda trainer: trainer.__name__)
def test_a_trainer_reads_its_own_sections_and_no_other(trainer, tiny, fields):
    plain = tiny(*SHORT)
    reading = Reading(plain)
    trainer(reading.params, fields, plain)
    assert reading.read == READS[trainer]
