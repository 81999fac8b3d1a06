"""Learning from labels: the step against torch written out, the plateau, the best weights, exact resume."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from coda.config import load_params
from coda.errors import ConfigError, TransientError
from coda.evaluation.metrics.accuracy import accuracy
from coda.networks.extractor import new_extractor
from coda.training.checkpoint import Checkpoints
from coda.training.classifier_trainer import ClassifierTrainer, Plateau
from coda.training.head import TokenSet, train_head
from coda.training.labels import LabelList
from coda.training.losses import NotFiniteError
from coda.training.schedules import Length
from coda.training.split import held_out
from coda.training.supervised import train_supervised
from coda.training.tokens import extract_tokens, field_probabilities, predict_fields

LABELS = LabelList({f"compound_{n}": f"moa_{n % 2}" for n in range(3)})
SHORT = ("supervised.iterations=12", "supervised.batch_size=8", "supervised.checkpoint_every=4", "crops.eval_grid=1")


class Quiz(ClassifierTrainer):
    """A linear layer on fixed numbers: small enough to be written out by hand."""

    def __init__(self, params, budget, length, held_out=None):
        source = torch.Generator().manual_seed(0)
        self.layer = torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(2, 3, generator=source))
        plateau = Plateau(budget.plateau_factor, budget.plateau_patience)
        super().__init__({"layer": self.layer}, params.compute, budget, length, plateau=plateau)
        self.inputs, self.codes = torch.randn(6, 5, 3, generator=source), torch.randint(0, 2, (6, 5), generator=source)
        self.held_out = held_out

    def batch(self, iteration):
        return self.inputs[iteration % 6], self.codes[iteration % 6]

    def logits(self, inputs):
        return self.layer(inputs)

    def validate(self):
        if self.held_out is not None:
            return next(self.held_out)
        with torch.no_grad():
            return self.layer(self.inputs[0]).softmax(dim=-1).numpy(), self.codes[0].numpy()


def weights(*networks):
    return {f"{n}.{k}": t.numpy().tobytes() for n, net in enumerate(networks) for k, t in net.state_dict().items()}


def split(fields):
    mask = held_out(fields.table, 1)
    return fields.take(~mask), fields.take(mask)


def test_a_step_is_adamw_on_cross_entropy_with_clipping_and_warm_up(tiny):
    params = tiny("supervised.learning_rate=0.1", "supervised.warmup_epochs=2", "supervised.weight_decay_start=0.3",
                  "supervised.weight_decay_end=0.3", "supervised.clip_norm=0.05",
                  "supervised.iterations=10")  # fmt: skip
    quiz = Quiz(params, params.supervised, Length(10, 2.0))
    weight, bias = (p.detach().clone().requires_grad_() for p in (quiz.layer.weight, quiz.layer.bias))
    reference = torch.optim.AdamW([{"params": [weight], "weight_decay": 0.3}, {"params": [bias], "weight_decay": 0.0}])
    for iteration in range(4):
        logits = quiz.inputs[iteration] @ weight.T + bias
        chosen = logits[torch.arange(5), quiz.codes[iteration]]
        loss = (logits.exp().sum(dim=1).log() - chosen).mean()
        for group in reference.param_groups:
            group["lr"] = 0.1 * min(1, (iteration + 1) / 4)
        reference.zero_grad()
        loss.backward()
        norm = torch.sqrt(weight.grad.square().sum() + bias.grad.square().sum())
        assert norm > 0.05
        for parameter in (weight, bias):
            parameter.grad *= 0.05 / (norm + 1e-6)
        reference.step()
        quiz.step(iteration, measure=False)
        torch.testing.assert_close(quiz.layer.weight, weight)
        torch.testing.assert_close(quiz.layer.bias, bias)


def test_numbers_of_a_validation(tiny):
    params = tiny("supervised.iterations=20")
    quiz = Quiz(params, params.supervised, Length(20, 2.0))
    losses = []
    for iteration in range(2):
        inputs, codes = quiz.batch(iteration)
        losses.append(float(F.cross_entropy(quiz.layer(inputs), codes).detach()))
        entry = quiz.step(iteration, measure=False)
    assert entry.numbers["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    found = torch.from_numpy(quiz.validate()[0])
    assert entry.numbers["validation_loss"] == pytest.approx(float(F.nll_loss(found.log(), quiz.codes[0])), rel=1e-5)
    assert entry.numbers["validation_accuracy"] == float((found.argmax(dim=1) == quiz.codes[0]).float().mean())


def test_the_rate_falls_after_each_plateau_until_nothing_is_left_to_gain(tiny):
    params = tiny("supervised.plateau_patience=1", "supervised.warmup_epochs=0", "supervised.learning_rate=0.01",
                  "supervised.learning_rate_end=0.0005")  # fmt: skip
    sure, unsure = np.array([[0.9, 0.1]], np.float32), np.array([[0.4, 0.6]], np.float32)
    answers = iter([unsure, sure, *[unsure] * 10])
    quiz = Quiz(params, params.supervised, Length(100, 1.0), held_out=((a, np.array([0])) for a in answers))
    rates, kept = [], None
    for iteration in range(10):
        if quiz.finished(iteration):
            break
        rates.append(quiz.learning_rate(iteration))
        quiz.step(iteration, measure=False)
        kept = weights(quiz.layer) if iteration == 1 else kept
    assert rates == pytest.approx([0.01] * 4 + [0.001] * 2)  # the best is the second; then two validations each
    quiz.take_best()
    assert quiz.accuracy == 1
    assert weights(quiz.layer) == kept


@pytest.mark.parametrize("waited", [0, 2])
def test_plateau_survives_a_checkpoint_as_json(tiny, waited):
    params = tiny()
    quiz, other = (Quiz(params, params.supervised, Length(8, 2.0)) for _ in range(2))
    quiz.plateau = Plateau(
        0.1, params.supervised.plateau_patience, scale=0.01, best=(0.123456789, 1.5) if waited else None, waited=waited
    )
    other.set_extra_state(json.loads(json.dumps(quiz.get_extra_state())))
    assert other.plateau == quiz.plateau


def test_a_loss_that_is_no_number_stops_the_training(tiny):
    params = tiny()
    quiz = Quiz(params, params.supervised, Length(20, 1.0))
    quiz.inputs[0, 0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match="iteration 0"):
        quiz.step(0, measure=False)


def test_supervised_learns_and_keeps_the_best_validation(fields, tiny):
    params = tiny(*SHORT, "supervised.iterations=100", "supervised.batch_size=16", "supervised.learning_rate=0.01",
                  "supervised.plateau_patience=50")  # fmt: skip
    training, validation = split(fields)
    result = train_supervised(training, validation, LABELS, params, seed=1)
    assert result.accuracy > 0.9  # two of three fields are of one mechanism
    assert result.accuracy == max(entry["validation_accuracy"] for entry in result.log)
    found = predict_fields(result.extractor, result.head, validation, params)
    assert accuracy(found, LABELS.codes(validation.table)).value == pytest.approx(result.accuracy)
    np.testing.assert_allclose(
        field_probabilities(result.head, extract_tokens(result.extractor, validation, params), params), found, atol=1e-6
    )
    assert not result.extractor.training
    assert not any(p.requires_grad for p in (*result.extractor.parameters(), *result.head.parameters()))


def test_supervised_uses_labelled_fields_alone(fields, tiny):
    """Fields of a compound without a label may hold anything."""
    params, (training, validation) = tiny(*SHORT), split(fields)
    plain = train_supervised(training, validation, LABELS, params, seed=1)
    images = training.images.copy()
    images[LABELS.codes(training.table) < 0] = 255
    changed = type(training)(images, training.table, training.channels)
    again = train_supervised(changed, validation, LABELS, params, seed=1)
    assert weights(again.extractor, again.head) == weights(plain.extractor, plain.head)


def test_supervised_starts_where_every_extractor_does(fields, tiny, root):
    frozen = tiny(*SHORT, "supervised.learning_rate=1e-30", "supervised.learning_rate_end=0",
                  "supervised.weight_decay_start=0", "supervised.weight_decay_end=0")  # fmt: skip
    result = train_supervised(*split(fields), LABELS, frozen, seed=4)
    start = new_extractor(frozen, seed=4).state_dict()
    for name, tensor in result.extractor.state_dict().items():
        torch.testing.assert_close(tensor, start[name], rtol=0, atol=1e-20)
    nowhere = [*SHORT, "extractor.weights=/nowhere.safetensors"]
    with pytest.raises(ConfigError, match="first weights"):
        train_supervised(*split(fields), LABELS, tiny(*nowhere), seed=0)
    assert load_params(root / "params.yaml").extractor.weights == "imagenet"


def test_nothing_to_learn_from_is_refused(fields, tiny):
    ghosts = LabelList({"x": "a", "y": "b"})
    with pytest.raises(ConfigError, match="training batches"):
        train_supervised(*split(fields), ghosts, tiny(*SHORT), seed=0)


@pytest.mark.parametrize("stop_at", [1, 5, 8])
def test_a_stopped_supervised_run_ends_with_the_bits_of_one_that_was_not(fields, tiny, tmp_path, stop_at):
    params, (training, validation) = tiny(*SHORT), split(fields)
    whole = train_supervised(training, validation, LABELS, params, seed=2)
    asked, kept = iter([False] * stop_at + [True]), Checkpoints(tmp_path)
    with pytest.raises(TransientError):
        train_supervised(
            training, validation, LABELS, params, seed=2, checkpoints=kept, should_stop=lambda: next(asked)
        )
    torch.manual_seed(99)
    resumed = train_supervised(training, validation, LABELS, params, seed=2, checkpoints=kept)
    assert weights(resumed.extractor, resumed.head) == weights(whole.extractor, whole.head)
    assert resumed.log == whole.log
    assert resumed.accuracy == whole.accuracy


def head_tokens(epoch=0):
    source = torch.Generator().manual_seed(epoch)
    return TokenSet(torch.randn((2, 20, 5, 16), generator=source), np.arange(20) % 2)


@pytest.mark.parametrize("stop_at", [2, 7, 12, 19])
def test_a_stopped_head_ends_with_the_bits_of_one_that_was_not(tiny, tmp_path, stop_at):
    """Ten batches an epoch, new tokens each epoch, and a plateau that divides: all must be found again."""
    params = tiny("head.budget.iterations=24", "head.budget.batch_size=4", "head.budget.checkpoint_every=5",
                  "head.plateau_patience=1", "head.budget.learning_rate=0.03",
                  "head.budget.learning_rate_end=0")  # fmt: skip
    options = {"classes": ("a", "b"), "alignment": "none", "seed": 1}
    extractor, asked_for = new_extractor(params, seed=0), []

    def tokens(epoch):
        asked_for.append(epoch)
        return head_tokens(epoch)

    whole = train_head(tokens, head_tokens(9), extractor, params, **options)
    assert len({entry["learning_rate"] for entry in whole.log[4:]}) > 1
    asked, kept = iter([False] * stop_at + [True]), Checkpoints(tmp_path)
    with pytest.raises(TransientError):
        train_head(
            tokens, head_tokens(9), extractor, params,
            checkpoints=kept, should_stop=lambda: next(asked), **options,
        )  # fmt: skip
    asked_for.clear()
    resumed = train_head(tokens, head_tokens(9), extractor, params, checkpoints=kept, **options)
    assert weights(resumed.head) == weights(whole.head)
    assert (resumed.log, resumed.accuracy) == (whole.log, whole.accuracy)
    assert asked_for == [0, *range(max(1, stop_at // 10), 3)]


def test_a_heads_checkpoint_of_other_tokens_or_labels_is_refused(tiny, tmp_path):
    params, kept = tiny("head.budget.iterations=8", "head.budget.checkpoint_every=4"), Checkpoints(tmp_path)
    options = {"classes": ("a", "b"), "alignment": "none", "seed": 1, "checkpoints": kept}
    extractor = new_extractor(params, seed=0)
    train_head(head_tokens, head_tokens(9), extractor, params, **options)
    assert kept.finished()
    swapped = TokenSet(head_tokens().tokens, 1 - head_tokens().codes)
    for training, validation in ((lambda _: head_tokens(3), head_tokens(9)), (lambda _: swapped, head_tokens(9)),
                                 (head_tokens, head_tokens(8))):  # fmt: skip
        with pytest.raises(ConfigError, match="another experiment"):
            train_head(training, validation, extractor, params, **options)
