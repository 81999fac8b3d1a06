"""Files are on the disk before they get their name, and their folder after it."""

import os
from pathlib import Path

import pytest

from coda.durable import give_name, write_durably


@pytest.fixture
def calls(monkeypatch):
    """What was asked of the disk, in order: the names of what was synced or renamed."""
    seen, opened = [], {}
    real_open, real_sync, real_replace = os.open, os.fsync, os.replace

    def note_open(path, *arguments, **more):
        handle = real_open(path, *arguments, **more)
        opened[handle] = os.fspath(path)
        return handle

    def note_sync(handle):
        seen.append(("sync", Path(opened[handle]).name))
        real_sync(handle)

    def note_name(draft, path, **more):
        seen.append(("name", Path(path).name))
        real_replace(draft, path, **more)

    monkeypatch.setattr(os, "open", note_open)
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_name)
    return seen


def test_bytes_are_on_the_disk_before_the_name_and_the_folder_after(tmp_path, calls):
    folder = tmp_path / "folder"
    write_durably(folder / "x.json", b"{}")
    assert calls == [("sync", "x.json.part"), ("name", "x.json"), ("sync", "folder")]
    assert (folder / "x.json").read_bytes() == b"{}"
    assert [path.name for path in folder.iterdir()] == ["x.json"]


def test_folder_is_named_after_all_it_holds(tmp_path, calls):
    draft = tmp_path / "draft"
    (draft / "deep").mkdir(parents=True)
    (draft / "deep" / "a").write_bytes(b"1")
    (draft / "b").write_bytes(b"2")
    give_name(draft, tmp_path / "model")
    assert calls[-2] == ("name", "model")
    assert {name for what, name in calls[:-2] if what == "sync"} >= {"a", "b"}
    assert (tmp_path / "model" / "deep" / "a").read_bytes() == b"1"
