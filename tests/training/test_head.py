"""The head: plateau schedule, best validation, tokens per batch; tokens of fields."""

import numpy as np
import pytest
import torch

from coda.errors import ConfigError
from coda.evaluation.metrics.accuracy import accuracy
from coda.networks.extractor import new_extractor
from coda.training import head_dataset
from coda.training.classifier_trainer import Plateau
from coda.training.groups import group_statistics, standardise_groups
from coda.training.head import TokenSet, train_head
from coda.training.head_dataset import cache_head_tokens
from coda.training.labels import LabelList
from coda.training.split import held_out
from coda.training.tokens import extract_tokens, field_features, field_probabilities, random_crop_batches

LABELS = LabelList({f"compound_{n}": f"moa_{n % 2}" for n in range(4)})


def token_set(seed, fields=60, classes=2):
    """Tokens whose class lies in one patch, so that a head must look at more than token 0."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, fields)
    tokens = torch.from_numpy(rng.normal(size=(2, fields, 5, 16)).astype(np.float32))
    tokens[:, :, 3, :8] += 4 * torch.from_numpy(codes[None, :, None] * 2 - 1).float()
    return TokenSet(tokens, codes.astype(np.int64))


def learn(params, training, validation, **options):
    extractor = new_extractor(params, seed=0)
    return train_head(training, validation, extractor, params, classes=("a", "b"), alignment="none", seed=1, **options)


def test_head_learns_from_patches_and_is_repeatable(tiny):
    data, check = token_set(0), token_set(1)
    results = [learn(tiny("head.budget.learning_rate=0.005"), lambda _epoch: data, check) for _ in range(2)]
    assert results[0].accuracy > 0.9
    assert results[0].log == results[1].log
    assert not results[0].head.training


def test_the_weights_of_the_best_validation_are_kept(tiny):
    params = tiny("head.budget.learning_rate=0.005")
    check = token_set(1)
    result = learn(params, lambda _epoch: token_set(0), check)
    found = field_probabilities(result.head, check.tokens.transpose(0, 1), params)
    assert accuracy(found, check.codes).value == pytest.approx(result.accuracy)
    assert result.accuracy == max(entry["validation_accuracy"] for entry in result.log)


def test_every_epoch_is_asked_for(tiny):
    epochs = []
    learn(tiny(), lambda epoch: epochs.append(epoch) or token_set(0), token_set(1))
    assert epochs == list(range(max(epochs) + 1))
    assert max(epochs) >= 4


def test_plateau_divides_after_patience_and_breaks_ties_by_loss():
    plateau = Plateau(factor=0.1, patience=2)
    assert plateau.improves(0.5, 1.0)
    assert plateau.improves(0.5, 0.9)
    assert [plateau.improves(0.4, 0.8) for _ in range(2)] == [False, False]
    assert plateau.scale == 1
    assert not plateau.improves(0.5, 0.95)
    assert plateau.scale == pytest.approx(0.1)


def test_training_ends_when_the_rate_has_fallen_below_its_end(tiny):
    params = tiny(
        "head.plateau_patience=1", "head.budget.learning_rate_end=0.0005", "head.budget.warmup_epochs=0",
        "head.budget.iterations=400",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    noise = TokenSet(torch.from_numpy(rng.normal(size=(1, 30, 5, 16)).astype(np.float32)), rng.integers(0, 2, 30))
    result = learn(params, lambda _epoch: noise, token_set(9, fields=8))
    assert result.log[-1]["iteration"] < 400


def test_nothing_to_learn_from_is_refused(tiny):
    empty = TokenSet(torch.zeros(1, 0, 5, 16), np.zeros(0, dtype=np.int64))
    with pytest.raises(ConfigError, match="held-out batches"):
        learn(tiny(), lambda _epoch: token_set(0), empty)


def test_material_is_standardised_by_each_batch_over_all_of_its_wells(tiny, fields):
    params = tiny("crops.eval_grid=1")
    extractor = new_extractor(params, seed=0)
    mask = held_out(fields.table, 1)
    cached = cache_head_tokens(extractor, fields.take(~mask), fields.take(mask), LABELS, params, seed=0)
    raw, aligned = cached.training("none", 0), cached.training("standardise", 0)
    assert raw.tokens.shape == (3, 32, 5, 16)
    assert raw.codes.tolist() == LABELS.codes(fields.take(~mask).table).tolist()
    batches = fields.table["Metadata_Batch"][~mask].to_numpy()
    for batch in np.unique(batches):
        own = aligned.of_fields(torch.from_numpy(np.flatnonzero(batches == batch)))
        assert own.mean(dim=(0, 1, 2)).abs().max() < 1e-3
    held = cached.validation("standardise")
    check = held.of_fields(torch.arange(len(held.codes)))
    assert check.mean(dim=(0, 1, 2)).abs().max() < 1e-3
    torch.testing.assert_close(cached.source.mean, raw.tokens.mean(dim=(0, 1, 2)), atol=1e-4, rtol=1e-3)
    assert torch.equal(cached.training("none", 1).tokens, raw.tokens)  # renew_crops is off in the demo


def test_renewed_crops_differ_from_epoch_to_epoch(tiny, fields):
    params = tiny("head.renew_crops=true", "crops.eval_grid=1")
    mask = held_out(fields.table, 1)
    cached = cache_head_tokens(
        new_extractor(params, seed=0), fields.take(~mask), fields.take(mask), LABELS, params, seed=0
    )
    first, second = (cached.training("none", epoch).tokens.clone() for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(cached.training("none", 1).tokens, second)
    assert torch.equal(cached.training("none", 0).tokens, first)


@pytest.mark.parametrize("gib", [1.0, 0.0])
def test_tokens_of_unlabelled_fields_are_never_kept_and_the_limit_holds(tiny, fields, gib, monkeypatch):
    """The peak of torch's memory is that of a few fields beside the labelled ones; at a limit of 0, of those alone."""
    monkeypatch.setattr("coda.training.tokens.BATCH", 8)
    params = tiny(f"head.tokens_gib={gib}", "head.random_crops=3", "crops.eval_grid=1")
    extractor, one = new_extractor(params, seed=0), LabelList({"compound_0": "a"})
    labelled = (fields.table["Metadata_Compound"] == "compound_0").to_numpy()
    few, others = np.flatnonzero(labelled), np.flatnonzero(~labelled)
    in_files = []
    real = head_dataset._reserve
    monkeypatch.setattr(head_dataset, "_reserve", lambda file, size: in_files.append(size) or real(file, size))

    def peak(rows):
        with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            cached = cache_head_tokens(extractor, fields.take(rows), fields.take(few[:2]), one, params, seed=0)
            kept = cached.training("none", 0).tokens
            cached.training("standardise", 1)
        sizes = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
        return max(np.cumsum(sizes)), kept.nbytes

    least, kept = peak(np.concatenate([few, others]))
    most, also = peak(np.concatenate([few, np.tile(others, 9)[:236]]))
    assert kept == also == 3 * len(few) * 5 * 16 * 4
    assert most - least < 0.1 * 3 * 200 * 5 * 16 * 4  # of the tokens of unlabelled fields, nothing stays
    assert in_files == ([2 * 5 * 16 * 4, kept] * 2 if gib == 0 else [])


def test_statistics_of_negative_controls_only(make_table):
    table = make_table(4, Batch="b", pert_type=["negcon", "trt", "trt", "negcon"])
    tokens = torch.randn(4, 1, 3, 2)
    found = group_statistics(tokens, table, by="batch", wells="negcon")["lab/b"]
    torch.testing.assert_close(found.mean, tokens[[0, 3]].mean(dim=(0, 1, 2)))
    names, controls = np.array(["lab/b"] * 4), tokens[[0, 3]]
    aligned = standardise_groups(tokens, names, {"lab/b": found})
    for own in (np.s_[:, :, :1], np.s_[:, :, 1:]):
        mean, sd = controls[own].mean(dim=(0, 1, 2)), controls[own].std(dim=(0, 1, 2), correction=0)
        torch.testing.assert_close(aligned[own], (tokens[own] - mean) / (sd + 1e-6))


def test_tokens_of_fields_do_not_depend_on_how_they_are_batched(tiny, fields, monkeypatch):
    params = tiny("crops.eval_grid=2")
    extractor = new_extractor(params, seed=0)
    whole = extract_tokens(extractor, fields, params)
    assert whole.shape == (48, 4, 5, 16)
    monkeypatch.setattr("coda.training.tokens.BATCH", 7)
    torch.testing.assert_close(extract_tokens(extractor, fields, params), whole, atol=1e-5, rtol=1e-4)
    assert field_features(whole, "mean").shape == (48, 16)
    torch.testing.assert_close(field_features(whole, "cls"), whole[:, :, 0].mean(dim=1))


def test_random_crops_follow_their_seed(tiny, fields):
    params = tiny()
    extractor = new_extractor(params, seed=0)

    def tokens(seed):
        found = random_crop_batches(extractor, fields, params, seed=seed, crops=2)
        return torch.cat([part for _, _, part in found]).unflatten(0, (2, -1))

    one, again, other = map(tokens, (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_last_batches_by_name_are_held_out_of_each_source(make_table):
    table = make_table(6, Source=["a", "a", "a", "b", "b", "b"], Batch=["b1", "b2", "b3", "b7", "b8", "b8"])
    assert held_out(table, 1).tolist() == [False, False, True, False, True, True]
    with pytest.raises(ConfigError, match="source b: found 2 batch"):
        held_out(table, 2)


def test_plates_or_wells_are_held_out_of_a_source_of_one_batch(make_table):
    wells = [f"A{n // 2 + 1:02d}" for n in range(20)]
    table = make_table(20, Source="a", Batch="b", Plate=["p1"] * 14 + ["p2"] * 6, Well=wells)
    assert held_out(table, 1, "plate").tolist() == [False] * 14 + [True] * 6
    by_well = held_out(table, 1, "well")
    assert by_well.sum() == 4  # one well in five, whole: two fields each
    assert set(table[by_well]["Metadata_Well"]).isdisjoint(table[~by_well]["Metadata_Well"])
    shuffled = table.sample(frac=1, random_state=1)
    assert np.array_equal(held_out(shuffled, 1, "well"), by_well[shuffled.index])


@pytest.mark.parametrize(
    ("plates", "wells", "count", "by", "remedy"),
    [
        (2, 2, 1, "batch", "Set split.by=plate, an easier test, or deliver more batch(es)."),
        (1, 2, 1, "batch", "Set split.by=well, an easier test, or deliver more batch(es)."),
        (1, 1, 1, "batch", "Deliver more batch(es)."),
        (2, 2, 2, "plate", "Lower split.validation_batches, set split.by=well, an easier test"),
        (1, 1, 3, "well", "Deliver more well(s)."),
    ],
)
def test_what_is_told_to_a_source_of_one_batch_can_be_done(make_table, plates, wells, count, by, remedy):
    table = make_table(4, Source="a", Batch="b", Plate=[f"p{n % plates}" for n in range(4)],
                       Well=[f"A{n // 2 % wells + 1:02d}" for n in range(4)])  # fmt: skip
    with pytest.raises(ConfigError, match="too few") as caught:
        held_out(table, count, by)
    assert caught.value.problems[0].remedy.startswith(remedy)
    for finer in ("plate", "well"):
        if f"split.by={finer}" in remedy:
            assert 0 < held_out(table, 1, finer).sum() < 4
