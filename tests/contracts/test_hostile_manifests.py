"""Manifests that mean harm: refused as data of the producer, with a reason, in little memory and time."""

import json
import tracemalloc
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_contracts import SHA, manifest, parse

from coda.contracts import BatchManifest
from coda.contracts.manifest import MAX_PLATES, files_and_folders
from coda.errors import ContractError


def with_files(*paths, size=1):
    document = manifest()
    document["plates"][0]["files"] += [{"path": path, "size_bytes": size, "sha256": SHA} for path in paths]
    return document


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"schema_version": ' + "1" * 10_000 + "}",
        json.dumps(manifest())[:-1] + ', "simulation": ' + '{"a":' * 5_000 + "1" + "}" * 5_001,
        json.dumps(manifest(batch="\ud800")),
        json.dumps(manifest(source="lab_a\n")),
        json.dumps(manifest(source="lab_a\u202e")),
    ],
)
def test_documents_that_are_no_manifest_are_refused_in_words(text):
    with pytest.raises(ContractError) as caught:
        BatchManifest.parse(text, "s3://landing/lab_a/b1/manifest.json")
    assert caught.value.problems
    assert len(str(caught.value)) < 5_000


@pytest.mark.parametrize("source", ["default", "unplaced"])
def test_no_laboratory_can_take_a_name_that_means_something_else(source):
    """A source called "default" would release for everybody: all others fall back to the pointer of that name."""
    with pytest.raises(ContractError, match="another name"):
        parse(manifest(source=source))


@pytest.mark.parametrize(
    "path",
    [
        "a//b",
        "./a",
        "a/.",
        ".",
        "a/",
        "a\nb",
        "a\tb",
        "x" * 256,
        "é" * 130,
        "a/../b",
        "\\\\host\\share",
        "C:\\x",
        "a\x7f",
    ],
)
def test_a_path_has_one_spelling_and_fits_a_disk(path):
    with pytest.raises(ContractError):
        parse(with_files(path))


def test_names_of_real_instruments_pass():
    parse(with_files("Images/r01c01f01p01-ch1 sk1.tiff", "Plate 1 (2)/Aufnahme_ä.tif", "x" * 255, "a/" * 100 + "b"))


def test_a_file_is_no_folder_of_another_file():
    with pytest.raises(ContractError, match="found \\['images'\\] as both"):
        parse(with_files("images", "images/a.tiff"))


NAMES = st.lists(st.sampled_from(["a", "b", "a b", "a-", "é"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(NAMES, max_size=12))
def test_files_that_are_folders_are_found_as_by_asking_for_all_parents(paths):
    above = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    assert files_and_folders(paths) == sorted({*paths} & above)


def test_deep_paths_take_no_more_memory_than_they_have_letters():
    """250 folders deep, each path would have 250 parents of 250 letters: a manifest of 64 MiB would take gigabytes."""
    paths = [f"{'a/' * 240}{number}" for number in range(2000)]
    tracemalloc.start()
    assert files_and_folders(paths) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2000 * 500


def test_counts_sizes_and_names_have_limits():
    plate = manifest()["plates"][0]
    with pytest.raises(ContractError, match="plates"):
        parse(manifest(plates=[{**plate, "plate": f"p{k}"} for k in range(MAX_PLATES + 1)]))
    with pytest.raises(ContractError, match="size_bytes"):
        parse(with_files("a", size=2**41))
    for name in ("x" * 201, "micro\nscope"):
        with pytest.raises(ContractError, match="instrument"):
            parse(manifest(instrument={**manifest()["instrument"], "name": name}))
