"""A matrix in its file gives what the loaded array gives, to the last bit, and says what is wrong with the file."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import coda.evaluation.predictions.prediction_levels
from coda.errors import ContractError
from coda.evaluation.predictions.prediction_levels import WELL, well_features
from coda.evaluation.predictions.stored_matrix import StoredMatrix, stored_matrix
from tests.evaluation.test_prediction_levels import index_rows

TYPES = st.sampled_from(["<f4", "<f8", ">f4", "<f2"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(0, 9), width=st.integers(1, 4), kind=TYPES, start=st.integers(-12, 12), stop=st.integers(-12, 12),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_slices_hold_what_slices_of_the_array_hold(tmp_path, rows, width, kind, start, stop, seed):
    whole = np.random.default_rng(seed).normal(size=(rows, width)).astype(kind)
    np.save(tmp_path / "m.npy", whole)
    stored = stored_matrix(tmp_path / "m.npy")
    assert isinstance(stored, StoredMatrix)
    assert (stored.shape, len(stored)) == (whole.shape, rows)
    found = stored[start:stop]
    assert found.dtype == whole.dtype
    assert found.tobytes() == whole[start:stop].tobytes()


def test_columns_first_and_steps(tmp_path):
    whole = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    np.save(tmp_path / "m.npy", whole)
    assert np.array_equal(stored_matrix(tmp_path / "m.npy")[1:3], whole[1:3])
    np.save(tmp_path / "m.npy", np.ascontiguousarray(whole))
    with pytest.raises(ValueError, match="steps of 2"):
        stored_matrix(tmp_path / "m.npy")[::2]


@pytest.mark.parametrize("block", [1, 5, 1024])
def test_means_of_wells_are_the_same_bits_read_in_blocks_of_any_size(tmp_path, monkeypatch, block):
    rows = index_rows(sites=3).sample(frac=1, random_state=3).reset_index(drop=True)
    features = np.random.default_rng(4).normal(size=(len(rows), 6)).astype(np.float32) * 1e3
    np.save(tmp_path / "m.npy", features)
    keys = rows[WELL].astype(str).agg("/".join, axis=1).to_numpy(dtype=str)
    expected = {}
    for key, values in zip(keys, features.astype(np.float64), strict=True):
        total, count = expected.get(key, (np.zeros(6), 0))
        expected[key] = (total + values, count + 1)
    monkeypatch.setattr(coda.evaluation.predictions.prediction_levels, "BLOCK_ROWS", block)
    for given_as in (features, stored_matrix(tmp_path / "m.npy")):
        wells, means = well_features(rows, given_as)
        for key, mean in zip(wells[WELL].astype(str).agg("/".join, axis=1), means, strict=True):
            total, count = expected[key]
            assert mean.tobytes() == (total / count).tobytes()


def test_a_file_that_is_no_matrix_or_is_cut_is_named(tmp_path):
    path = tmp_path / "features.npy"
    whole = np.ones((5, 3))
    np.save(path, whole)
    stored, content = stored_matrix(path), path.read_bytes()
    np.save(path, whole[0])
    with pytest.raises(ContractError, match=r"features\.npy: found 1 dimensions; expected rows and columns"):
        stored_matrix(path)
    for broken in (content[:-1], content[:40], b"", b"[[1, 2]]"):
        path.write_bytes(broken)
        with pytest.raises(ContractError, match=r"features\.npy"):
            stored_matrix(path)
    path.write_bytes(content[:-8])  # as a copy that is still being written
    assert np.array_equal(stored[0:4], whole[:4])
    with pytest.raises(ContractError, match="found 5 numbers from row 3 on; expected 6"):
        stored[3:5]
