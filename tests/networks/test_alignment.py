"""Token statistics against numpy; what standardisation and CORAL promise."""

import numpy as np
import pytest
import safetensors.torch
import torch

from coda.networks.alignment import TokenStatistics, coral, fit_statistics, rescale, standardise


def correlated(seed, count=4000, width=5, offset=3.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=g) @ torch.randn(width, width, generator=g) + offset * seed


def test_statistics_equal_numpys_over_all_tokens():
    tokens = correlated(1).view(100, 4, 10, 5)
    stats = fit_statistics(tokens)
    flat = tokens.reshape(-1, 5).double().numpy()
    np.testing.assert_allclose(stats.mean, flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.sd, flat.std(0), rtol=1e-5)
    np.testing.assert_allclose(stats.covariance, np.cov(flat.T, bias=True), rtol=1e-4, atol=1e-5)
    assert stats.count == 4000


def test_parts_give_the_same_statistics_as_the_whole():
    tokens = correlated(2)
    whole, parts = fit_statistics(tokens), fit_statistics(iter([tokens[:1], tokens[1:1500], tokens[1500:]]))
    torch.testing.assert_close(whole.covariance, parts.covariance)
    assert whole.count == parts.count


def test_a_large_mean_does_not_eat_the_variance():
    tokens = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)) + 3000
    assert fit_statistics(tokens).sd == pytest.approx([1.0, 1.0], abs=0.05)


def test_no_token_is_an_error():
    with pytest.raises(ValueError, match="at least one token"):
        fit_statistics(torch.zeros(0, 4))


def test_standardised_tokens_have_mean_0_and_deviation_1():
    tokens = correlated(3).view(40, 100, 5)
    aligned = standardise(tokens, fit_statistics(tokens))
    assert aligned.mean(dim=(0, 1)).abs().max() < 1e-4
    assert (aligned.std(dim=(0, 1), correction=0) - 1).abs().max() < 1e-4


def test_a_dead_channel_stays_finite():
    tokens = torch.ones(10, 3)
    assert torch.equal(standardise(tokens, fit_statistics(tokens)), torch.zeros(10, 3))


def test_standardisation_takes_away_any_change_of_gain_and_offset():
    tokens = correlated(1)
    other = tokens * torch.tensor([0.5, 2.0, 3.0, 1.0, 0.1]) + torch.arange(5.0)
    torch.testing.assert_close(
        standardise(tokens, fit_statistics(tokens)), standardise(other, fit_statistics(other)), atol=1e-3, rtol=1e-3
    )


def test_rescaled_tokens_have_the_sources_mean_and_deviation_and_their_own_correlations():
    target, stats = correlated(1), fit_statistics(correlated(2))
    moved = rescale(target, fit_statistics(target), stats)
    found = fit_statistics(moved)
    torch.testing.assert_close(found.mean, stats.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.sd, stats.sd, atol=1e-4, rtol=1e-4)
    before, after = (np.corrcoef(part.reshape(-1, 5).numpy().T) for part in (target, moved))
    np.testing.assert_allclose(after, before, atol=1e-4)
    torch.testing.assert_close(rescale(target, stats, stats), target, atol=1e-4, rtol=1e-4)


def test_rescaling_is_coral_where_channels_have_nothing_in_common():
    g = torch.Generator().manual_seed(3)
    target, source = torch.randn(200_000, 4, generator=g) * 3 + 1, torch.randn(200_000, 4, generator=g) * 0.5 - 2
    own, stats = fit_statistics(target), fit_statistics(source)
    plain = [TokenStatistics(s.mean, s.sd, torch.diag(s.sd**2), s.count) for s in (own, stats)]
    torch.testing.assert_close(rescale(target, own, stats), coral(target, *plain, shrinkage=0.0), atol=1e-3, rtol=1e-3)


def test_coral_gives_the_targets_tokens_the_sources_moments():
    source, target = correlated(1), correlated(2)
    stats = fit_statistics(source)
    moved = fit_statistics(coral(target, fit_statistics(target), stats, shrinkage=0.0))
    torch.testing.assert_close(moved.mean, stats.mean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(moved.covariance, stats.covariance, atol=1e-2, rtol=1e-2)


def test_coral_between_equal_groups_changes_nothing():
    tokens = correlated(1)
    stats = fit_statistics(tokens)
    torch.testing.assert_close(coral(tokens, stats, stats), tokens, atol=1e-3, rtol=1e-3)


def test_coral_survives_a_singular_covariance():
    tokens = correlated(1)[:, :1].expand(-1, 4)
    assert coral(tokens, fit_statistics(tokens), fit_statistics(correlated(2, width=4))).isfinite().all()


def test_statistics_survive_the_way_through_a_file():
    stats = fit_statistics(correlated(1))
    again = TokenStatistics.from_bytes(stats.to_bytes())
    assert torch.equal(again.covariance, stats.covariance)
    assert again.count == stats.count


def two_kinds(seed):
    """Tokens (crops, 1 + patches, width) whose class token has other moments than the patches."""
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randn(600, 9, 4, generator=g) @ torch.randn(4, 4, generator=g) + seed
    tokens[:, 0] = torch.randn(600, 4, generator=g) @ torch.randn(4, 4, generator=g) * 5 - 20
    return tokens


def test_class_token_and_patches_have_moments_of_their_own():
    tokens = two_kinds(1)
    stats = fit_statistics(tokens)
    assert stats.separate
    for found, own in ((stats, tokens), (stats.class_token, tokens[:, 0]), (stats.patches, tokens[:, 1:])):
        flat = own.reshape(-1, 4).double().numpy()
        np.testing.assert_allclose(found.mean, flat.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.sd, flat.std(0), rtol=1e-5)
        np.testing.assert_allclose(found.covariance, np.cov(flat.T, bias=True), rtol=1e-4, atol=1e-4)
        assert found.count == len(flat)
    parts = fit_statistics(iter([tokens[:7], tokens[7:7], tokens[7:]]))
    torch.testing.assert_close(parts.patches.covariance, stats.patches.covariance, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.class_token.covariance, stats.class_token.covariance, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("align", ["standardise", "rescale", "coral"])
def test_each_kind_of_token_gets_its_own_frame(align):
    tokens, source = two_kinds(1), fit_statistics(two_kinds(2))
    own = fit_statistics(tokens)
    moved = {
        "standardise": lambda: standardise(tokens, own),
        "rescale": lambda: rescale(tokens, own, source),
        "coral": lambda: coral(tokens, own, source, shrinkage=0.0),
    }[align]()
    for kind, part in (("class_token", moved[:, 0]), ("patches", moved[:, 1:])):
        flat, wanted = part.reshape(-1, 4).double(), getattr(source, kind)
        mean = torch.zeros(4) if align == "standardise" else wanted.mean
        sd = torch.ones(4) if align == "standardise" else wanted.sd
        torch.testing.assert_close(flat.mean(0).float(), mean, atol=1e-3, rtol=1e-3)
        # few class tokens: their covariance is shrunk a little even where nobody asks for it
        torch.testing.assert_close(flat.std(0, correction=0).float(), sd, atol=0.1, rtol=0.02)


def test_coral_of_fewer_class_tokens_than_channels_does_not_blow_up():
    g = torch.Generator().manual_seed(0)
    few, source = torch.randn(20, 5, 64, generator=g), fit_statistics(torch.randn(3000, 5, 64, generator=g))
    moved = coral(few, fit_statistics(few), source)
    other = coral(torch.randn(500, 5, 64, generator=g), fit_statistics(few), source)
    for tokens in (moved, other):
        # whatever the 20 tokens did not show must not be blown up: tokens of the same kind stay of the same size
        assert float(tokens[:, 0].std()) < 2.0


def test_one_set_of_before_0017_stays_readable_and_aligns_as_it_did():
    tokens = two_kinds(1)
    every = tokens.reshape(-1, 4)
    written = {"mean": every.mean(0), "sd": every.std(0, correction=0), "covariance": torch.cov(every.T, correction=0)}
    content = safetensors.torch.save({**written, "count": torch.tensor(len(every))})
    old = TokenStatistics.from_bytes(content)
    assert not old.separate
    expected = (tokens - written["mean"]) / (written["sd"] + 1e-6)
    torch.testing.assert_close(standardise(tokens, fit_statistics(tokens).like(old)), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(standardise(tokens, old), expected, atol=1e-5, rtol=1e-5)
    # and what is written of one set is a file of before
    assert set(safetensors.torch.load(old.to_bytes())) == {"mean", "sd", "covariance", "count"}


def test_both_sets_survive_the_way_through_a_file_and_half_a_file_is_refused():
    stats = fit_statistics(two_kinds(3))
    again = TokenStatistics.from_bytes(stats.to_bytes())
    for kind in ("class_token", "patches"):
        for name in ("mean", "sd", "covariance"):
            assert torch.equal(getattr(getattr(again, kind), name), getattr(getattr(stats, kind), name))
        assert getattr(again, kind).count == getattr(stats, kind).count
    tensors = safetensors.torch.load(stats.to_bytes())
    # a reader of before looks for 'mean' and must not find it: it would serve the head with the wrong moments
    assert "mean" not in tensors
    del tensors["patches.sd"]
    with pytest.raises(KeyError):
        TokenStatistics.from_bytes(safetensors.torch.save(tensors))
