"""Features in a folder of their own: gate and report read them there, and whoever registers or predicts needs none."""

import numpy as np
import pytest

from coda.adaptation.candidates import read_candidates
from coda.adaptation.folder import read_features
from coda.adaptation.run import adapt_and_serve


@pytest.fixture
def folders(tiny, make_base, make_plates, tmp_path):
    """Return one folder with everything, and the candidates and features of the same adaptation apart."""
    whole, apart, features = tmp_path / "whole", tmp_path / "candidates", tmp_path / "features"
    for out, kept in ((whole, None), (apart, features)):
        fields = make_plates(batches=2)
        is_batch = (fields.table["Metadata_Batch"] == "b1").to_numpy()
        adapt_and_serve(make_base(), fields, is_batch, out, tiny(), seed=1, features=kept)
    return whole, apart, features


def test_nobody_but_gate_and_report_is_handed_features(folders):
    whole, apart, features = folders
    assert not list(apart.rglob("*.npy"))
    assert not list(features.rglob("*.parquet"))
    for candidate in read_candidates(apart):
        assert np.array_equal(read_features(features, candidate), read_features(whole, candidate))
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    told = {path.relative_to(part) for part in (apart, features) for path in part.rglob("*") if path.is_file()}
    assert told == names
