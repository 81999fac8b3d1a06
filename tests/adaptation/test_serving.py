"""Fields through extractor, alignment and head."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch

from coda.adaptation.serving import Way, align, fit_groups, serve
from coda.errors import ConfigError
from coda.networks.alignment import TokenStatistics, fit_statistics
from coda.training import tokens as tokens_module
from coda.training.split import group_names
from coda.training.tokens import extract_tokens, field_features, field_probabilities


def ways(base):
    return [
        Way("raw", "none", base.heads["none"].head, base.heads["none"].source),
        Way("std", "standardise", base.heads["standardise"].head, base.heads["standardise"].source),
        Way("coral", "coral", base.heads["none"].head, base.heads["none"].source),
    ]


def test_serving_in_pieces_equals_doing_all_at_once(tiny, make_base, make_plates, monkeypatch):
    params, base, fields = tiny(), make_base(), make_plates(batches=2)
    monkeypatch.setattr(tokens_module, "BATCH", 20)
    service = serve(base.extractor, ways(base), fields, params)
    tokens = extract_tokens(base.extractor, fields, params)
    names = group_names(fields.table, "batch")
    aligned = tokens.clone()
    for name in np.unique(names):
        rows = torch.from_numpy(np.flatnonzero(names == name))
        for own in (slice(0, 1), slice(1, None)):
            part = tokens[rows][:, :, own].double()
            flat = part.flatten(0, 2)
            aligned[rows, :, own] = ((part - flat.mean(0)) / flat.std(0, correction=0)).float()
    expected = field_probabilities(base.heads["standardise"].head, aligned, params)
    assert service.ways["std"].probabilities == pytest.approx(expected, abs=2e-5)
    assert service.ways["raw"].probabilities == pytest.approx(
        field_probabilities(base.heads["none"].head, tokens, params), abs=2e-5
    )
    assert service.features == pytest.approx(field_features(tokens, "mean").numpy(), abs=1e-5)
    assert service.ways["std"].features == pytest.approx(field_features(aligned, "mean").numpy(), abs=1e-3)
    assert np.abs(service.ways["std"].probabilities - service.ways["raw"].probabilities).max() > 1e-3


def test_serving_twice_gives_the_same_bits(tiny, make_base, make_plates):
    base, fields = make_base(), make_plates()
    first, second = (serve(base.extractor, ways(base), fields, tiny()) for _ in range(2))
    for name, served in first.ways.items():
        assert served.probabilities.tobytes() == second.ways[name].probabilities.tobytes()


def test_coral_gives_the_group_the_sources_moments(tiny, make_base, make_plates):
    base, fields = make_base(), make_plates(sites=3)
    tokens = extract_tokens(base.extractor, fields, tiny())
    names = group_names(fields.table, "batch")
    own = {str(names[0]): fit_statistics(tokens)}
    moved = fit_statistics(align(tokens, names, own, base.heads["none"].source, "coral"))
    source = base.heads["none"].source
    before = own[str(names[0])]
    for kind in ("patches", "class_token"):
        found, wanted, was = (getattr(statistics, kind) for statistics in (moved, source, before))
        # the shrinkage that keeps whitening finite leaves some of the difference; more where tokens are few
        whitened, coloured = (shrunk(moments, power) for moments, power in ((was, -0.5), (wanted, 0.5)))
        expected = (whitened @ coloured).T @ was.covariance.double().numpy() @ (whitened @ coloured)
        scale = float(wanted.covariance.norm())
        assert found.mean.numpy() == pytest.approx(wanted.mean.numpy(), abs=1e-3)
        assert np.abs(found.covariance.numpy() - expected).max() < 1e-3 * scale
        assert (found.covariance - wanted.covariance).norm() < (was.covariance - wanted.covariance).norm()


def shrunk(moments, power):
    """The power of a covariance after shrinkage, by another library than the code's."""
    matrix, width = moments.covariance.double().numpy(), len(moments.mean)
    share = max(0.01, width / (width + moments.count))
    target = np.diag(matrix).mean() * np.eye(width)
    return np.real(scipy.linalg.fractional_matrix_power((1 - share) * matrix + share * target, power))


def test_statistics_by_plate_and_of_controls_only(tiny, make_base, make_plates):
    base, fields = make_base(), make_plates()
    params, plate = tiny(), group_names(fields.table, "plate")
    by_plate = fit_groups(base.extractor, fields, params, names=plate, wells="all")
    assert sorted(by_plate) == ["lab/b0/b0p0", "lab/b0/b0p1"]
    controls = fit_groups(base.extractor, fields, params, names=plate, wells="negcon")
    chosen = (fields.table["Metadata_pert_type"] == "negcon").to_numpy() & (plate == "lab/b0/b0p1")
    expected = fit_statistics(extract_tokens(base.extractor, fields.take(chosen), params))
    assert controls["lab/b0/b0p1"].mean.numpy() == pytest.approx(expected.mean.numpy(), abs=1e-6)
    untreated = fields.take(np.flatnonzero(fields.table["Metadata_pert_type"] == "trt"))
    names = group_names(untreated.table, "plate")
    without = fit_groups(base.extractor, untreated, params, names=names, wells="negcon")
    assert without["lab/b0/b0p0"].count > 0


def test_no_field_is_said_plainly(tiny, make_base, make_plates):
    base, fields = make_base(), make_plates()
    with pytest.raises(ConfigError, match="nothing to predict"):
        serve(base.extractor, ways(base), fields.take(np.zeros(len(fields), dtype=bool)), tiny())


def test_rescaling_gives_each_group_the_sources_mean_and_deviation(tiny, make_base, make_plates):
    base, fields, params = make_base(), make_plates(batches=2), tiny()
    names = group_names(fields.table, "batch")
    tokens = extract_tokens(base.extractor, fields, params)
    own = fit_groups(base.extractor, fields, params, names=names, wells="all")
    source = base.heads["none"].source
    moved = align(tokens, names, own, source, "rescale")
    for name in np.unique(names):
        found = fit_statistics(moved[names == name])
        for own, wanted in ((found.class_token, source.class_token), (found.patches, source.patches)):
            torch.testing.assert_close(own.mean, wanted.mean, atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(own.sd, wanted.sd, atol=1e-3, rtol=1e-3)


def as_before(frozen):
    """A head whose release knows one set of moments over all tokens, as all did before 0017."""
    source = frozen.source
    return replace(frozen, source=TokenStatistics(source.mean, source.sd, source.covariance, source.count))


def test_a_head_of_before_keeps_its_answers_beside_one_of_today(tiny, make_base, make_plates):
    """Against the alignment as it was: one set of moments, by numpy."""
    params, base, fields = tiny(), make_base(), make_plates(batches=2)
    old = {name: as_before(frozen) for name, frozen in base.heads.items()}
    both = [*ways(base), *(Way(f"old {w.name}", w.alignment, w.head, old[w.head.alignment].source) for w in ways(base))]
    served = serve(base.extractor, both, fields, params).ways
    tokens = extract_tokens(base.extractor, fields, params).double().numpy()
    names = group_names(fields.table, "batch")
    aligned = np.empty_like(tokens)
    for name in np.unique(names):
        flat = tokens[names == name].reshape(-1, tokens.shape[-1])
        aligned[names == name] = (tokens[names == name] - flat.mean(0)) / flat.std(0)
    expected = field_probabilities(base.heads["standardise"].head, torch.from_numpy(aligned).float(), params)
    assert served["old std"].probabilities == pytest.approx(expected, abs=2e-5)
    assert np.abs(served["std"].probabilities - expected).max() > 1e-3
    assert served["old raw"].probabilities.tobytes() == served["raw"].probabilities.tobytes()


def test_features_are_what_the_extractor_was_trained_for(tiny, make_base, make_plates):
    fields = make_plates()
    for pool in ("cls", "mean"):
        base = make_base()
        base.extractor.config["pool"] = pool
        service = serve(base.extractor, ways(base), fields, tiny())
        tokens = extract_tokens(base.extractor, fields, tiny()).numpy()
        expected = tokens[:, :, 0].mean(1) if pool == "cls" else tokens.mean(2).mean(1)
        assert service.features == pytest.approx(expected, abs=1e-5)
        assert service.ways["raw"].features == pytest.approx(expected, abs=1e-5)
