"""A batch folder as DVC keeps it: byte for byte what DVC itself writes, with plate stores here or in the data store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Moto

from coda.contracts.placement import STORES_NAME, StoreReference, StoreReferences
from coda.errors import IntegrityError
from coda.settings import Settings
from coda.storage.clone import object_key
from coda.storage.data_registry import commit_batch, create_registry, fetch_batch, fetch_tables
from coda.storage.dvc_tree import BatchTree, Entry, tree_of
from coda.storage.objects import store_for
from coda.storage.plate_stores import DataStore, md5_of

NAMES = ("manifest.json", "b/x.json", "b-1.json", "b.json", "B.json", "ü.npz", "p 1.ome.zarr.zip", "data_docs/i.html")
STORE = "p1.ome.zarr.zip"


@pytest.fixture
def services(moto_server: Moto, tmp_path: Path) -> Settings:
    settings = moto_server.settings(tmp_path)
    create_registry(Path(settings.data_registry), settings.data_remote)
    return settings


def make_batch(folder: Path, pixels: bytes = b"pixels" * 50) -> Path:
    (folder / "data_docs").mkdir(parents=True)
    (folder / "manifest.json").write_text("one")
    (folder / "data_docs" / "index.html").write_text("for people")
    (folder / STORE).write_bytes(pixels)
    return folder


def by_reference(folder: Path, data: DataStore) -> StoreReference:
    """Move the plate store of a batch folder to the data store, as ingest does."""
    reference = data.keep(folder / STORE)
    (folder / STORE).unlink()
    StoreReferences(stores=(reference,)).write(folder / STORES_NAME)
    return reference


def test_list_and_pointer_are_what_dvc_writes(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "b1"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * number)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data/b1"], cwd=tmp_path, check=True)
    tree = tree_of(folder)
    assert tree.pointer("b1") == (tmp_path / "data" / "b1.dvc").read_text()
    listing = next((tmp_path / ".dvc" / "cache").rglob("*.dir"))
    assert listing.read_bytes() == tree.listing
    assert listing.parent.name + listing.name == tree.digest


@given(st.dictionaries(st.text("ab/-. ü", min_size=1, max_size=6), st.binary(min_size=16, max_size=16), max_size=6))
def test_the_order_of_files_changes_no_digest(files: dict[str, bytes]) -> None:
    entries = [Entry(md5=content.hex(), relpath=name) for name, content in files.items()]
    one = BatchTree({}, (), tuple(sorted(entries, key=lambda entry: entry.relpath)), 0)
    assert [entry["relpath"] for entry in json.loads(one.listing)] == sorted(files)


def test_a_batch_by_reference_is_the_same_version_as_with_its_pixels(services: Settings, tmp_path: Path) -> None:
    whole = make_batch(tmp_path / "whole" / "b1")
    first = commit_batch(whole, "lab", "b1", settings=services, run_id="r1")
    named = make_batch(tmp_path / "named" / "b1")
    reference = by_reference(named, DataStore(services))
    assert commit_batch(named, "lab", "b1", settings=services, run_id="r2") == first
    assert not (named / STORE).exists()

    fetched = fetch_batch(first, tmp_path / "with pixels", settings=services)
    assert md5_of(fetched / STORE) == reference.md5
    assert not (fetched / STORES_NAME).exists()

    (tables,) = fetch_tables([first], tmp_path / "tables", settings=services)
    assert sorted(path.name for path in tables.rglob("*") if path.is_file()) == ["manifest.json", STORES_NAME]
    assert StoreReferences.read(tables / STORES_NAME).stores == (reference,)
    # what has no docs for people is another version: nobody commits what was fetched as tables
    assert tree_of(tables).digest != first.digest


@pytest.mark.parametrize("loss", ["gone", "cut"])
def test_a_version_never_names_a_store_that_is_not_there(services: Settings, tmp_path: Path, loss: str) -> None:
    folder = make_batch(tmp_path / "b1")
    reference = by_reference(folder, DataStore(services))
    remote = store_for(services.data_remote, services)
    if loss == "gone":
        remote.delete(object_key(reference.md5))
    else:
        remote.put(object_key(reference.md5), b"half")
    with pytest.raises(IntegrityError, match=r"Ingest the batch again") as caught:
        commit_batch(folder, "lab", "b1", settings=services, run_id="r1")
    assert STORE in str(caught.value)


def test_a_table_that_was_changed_in_the_store_is_told_by_name(services: Settings, tmp_path: Path) -> None:
    revision = commit_batch(make_batch(tmp_path / "b1"), "lab", "b1", settings=services, run_id="r1")
    remote = store_for(services.data_remote, services)
    remote.put(object_key(md5_of(tmp_path / "b1" / "manifest.json")), b"two")
    with pytest.raises(IntegrityError, match=r"data/lab/b1 \(\w{12}\): manifest.json: found other bytes"):
        fetch_tables([revision], tmp_path / "out", settings=services)
    assert not list((tmp_path / "out").iterdir()), "a half-fetched batch"
