"""Model folders: every changed, missing or extra byte is seen, and a crash leaves no half of one."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coda.errors import IntegrityError
from coda.networks import artifact

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}
CONFIG = {"kind": "test", "width": 3}


def save(folder, **extra):
    return artifact.save(folder, TENSORS, CONFIG, {name: content.encode() for name, content in extra.items()})


def test_round_trip(tmp_path):
    digest = save(tmp_path / "m", note="hello")
    tensors, config = artifact.load(tmp_path / "m", digest)
    assert config == CONFIG
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert artifact.folder_digest(tmp_path / "m") == digest
    assert artifact.extra_file(tmp_path / "m", "note") == b"hello"
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "config.json", "digests.json", "note", "weights.safetensors",
    ]  # fmt: skip


def test_same_content_same_digest_other_content_other_digest(tmp_path):
    assert save(tmp_path / "a") == save(tmp_path / "b")
    changed = artifact.save(tmp_path / "c", {**TENSORS, "b": torch.tensor([1, 3])}, CONFIG)
    assert changed != artifact.folder_digest(tmp_path / "a")


def test_views_of_one_storage_are_saved_as_they_look(tmp_path):
    base = torch.arange(6.0)
    artifact.save(tmp_path / "m", {"even": base[::2], "all": base}, CONFIG)
    assert artifact.load(tmp_path / "m")[0]["even"].tolist() == [0, 2, 4]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["weights.safetensors", "config.json", "digests.json", "note"]), st.data())
def test_any_changed_byte_is_refused(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("m") / "m"
    digest = save(folder, note="hello")
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(IntegrityError):
        artifact.load(folder, digest)


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "digests.json"])
def test_a_missing_file_is_named(tmp_path, name):
    save(tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(IntegrityError, match=name):
        artifact.load(tmp_path / "m")


def test_an_extra_file_is_named(tmp_path):
    save(tmp_path / "m")
    (tmp_path / "m" / "hook.py").write_text("import os")
    with pytest.raises(IntegrityError, match=r"hook\.py.*not listed"):
        artifact.load(tmp_path / "m")


def test_all_faults_come_together(tmp_path):
    save(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "m" / "weights.safetensors").write_bytes(b"x")
    (tmp_path / "m" / "extra").write_bytes(b"")
    with pytest.raises(IntegrityError) as caught:
        artifact.load(tmp_path / "m")
    assert len(caught.value.problems) == 3


def test_an_unexpected_digest_is_refused_even_when_the_folder_agrees_with_itself(tmp_path):
    save(tmp_path / "m")
    with pytest.raises(IntegrityError, match="digest 0000"):
        artifact.load(tmp_path / "m", "0" * 64)


def test_a_list_of_digests_cannot_point_elsewhere(tmp_path):
    save(tmp_path / "m")
    (tmp_path / "secret").write_text("s")
    path = tmp_path / "m" / "digests.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "../secret": "0" * 64}))
    with pytest.raises(IntegrityError, match="no such file"):
        artifact.load(tmp_path / "m")


def test_replacing_leaves_no_rest_and_a_failure_leaves_the_old_one(tmp_path, monkeypatch):
    first = save(tmp_path / "m")
    second = artifact.save(tmp_path / "m", TENSORS, {**CONFIG, "width": 4})
    assert artifact.folder_digest(tmp_path / "m") == second != first
    assert [path.name for path in tmp_path.iterdir()] == ["m"]

    def full_disk(_path, _content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path / "m")
    assert artifact.folder_digest(tmp_path / "m") == second
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_nothing_but_a_folder_is_no_model(tmp_path):
    with pytest.raises(IntegrityError, match="not a model folder"):
        artifact.load(tmp_path / "nothing")
