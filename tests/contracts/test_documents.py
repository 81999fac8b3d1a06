"""Documents without a contract, as a killed or broken process leaves them: told in words, by all readers."""

import hashlib
import json
import math
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from coda.adaptation.candidates import CANDIDATES_FILE, read_candidates
from coda.adaptation.folder import SERVED_AS, pairing_remarks, read_served_as
from coda.contracts import documents
from coda.errors import IntegrityError
from coda.monitoring.inputs import _document, _drift, _training
from coda.steps.register_training import _scores
from coda.storage.data_garbage import _listing

BROKEN = (
    b"",
    b"{", b'[{"name": "unadap', b"[" * 200_000, b'{"a":' * 100_000, b"9" * 6000, b"\xff\xfe{}", b"null", b"3",
    b'"text"', b"\x00\x01", b"<html>", b'{"adapted": 3, "base": [1], "reason": null}', b"[1]",
    b'[{"md5": "../../x"}]', b"NaN",
)  # fmt: skip


def readers(folder):
    """Every reader of such a file -> the file's name."""
    heads = folder / "heads" / "none"
    heads.mkdir(parents=True, exist_ok=True)
    (heads / "digests.json").write_text("{}")
    return {
        lambda: read_candidates(folder): CANDIDATES_FILE,
        lambda: read_served_as(folder): SERVED_AS,
        lambda: pairing_remarks(folder): "training.json",
        lambda: _training(folder): "training.json",
        lambda: _drift(folder): "drift.json",
        lambda: _document(folder): "metrics.json",
        lambda: _scores(folder / "heads", folder): "metrics.json",
    }


def read_all(folder, content):
    for read, name in readers(folder).items():
        (folder / name).write_bytes(content)
        with suppress(IntegrityError):  # any other error is a fault
            read()


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_document_is_told_in_words(content, tmp_path):
    read_all(tmp_path, content)


@pytest.mark.parametrize("content", BROKEN[:6], ids=range(6))
def test_a_cut_document_is_told_with_its_name_and_a_remedy(content, tmp_path):
    for read, name in readers(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IntegrityError, match=name) as caught:
            read()
        assert all(problem.remedy for problem in caught.value.problems)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["reason", "pair_report", "adapted", "base", "name", "pairs"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(JSON)
def test_documents_of_any_shape_are_read_or_told_in_words(tmp_path, value):
    read_all(tmp_path, json.dumps(value).encode())


def test_a_document_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 100)
    for read, name in readers(tmp_path).items():
        (tmp_path / name).write_bytes(b"[" + b" " * 100 + b"]")
        with pytest.raises(IntegrityError, match="at most 100 bytes"):
            read()


def test_numbers_that_are_none_are_kept(tmp_path):
    (tmp_path / "n.json").write_text('{"a": NaN, "b": 1}')
    read = documents.document_at(tmp_path / "n.json", TypeAdapter(dict[str, float]), expected="numbers", remedy="None.")
    assert math.isnan(read["a"])


class Store:
    """A store that holds one object, whatever its name."""

    def __init__(self, content):
        self.content = content

    def find(self, key):
        return self.content

    def url(self, key):
        return f"s3://b/{key}"


@pytest.mark.parametrize("content", [b"[]", *BROKEN], ids=range(len(BROKEN) + 1))
def test_a_list_of_files_that_was_changed_lets_nothing_be_collected(content):
    digest = hashlib.md5(b'[{"md5": "..."}]', usedforsecurity=False).hexdigest() + ".dir"
    with pytest.raises(IntegrityError, match="Nothing is collected"):
        _listing(Store(content), digest)
    own = hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"
    if content != b"[]":
        with pytest.raises(IntegrityError, match=r"s3://b/files/md5"):
            _listing(Store(content), own)
