"""Manifests with a file list for a plate: which form is which, and that the old one stays what it was."""

import json

import pytest
from test_contracts import SHA, manifest, parse

from coda.contracts import BatchManifest
from coda.contracts.base import NewerDocumentError
from coda.contracts.manifest import MAX_FILE_LIST_BYTES, MAX_FILES_OF_A_PLATE
from coda.errors import ContractError

LIST = {"path": "file_list/p1.parquet", "size_bytes": 700_000, "sha256": SHA, "rows": 17_280}


def listed(ref=LIST, **changes):
    """A manifest of one plate whose images are in a list."""
    document = manifest(schema_version=2)
    plate = document["plates"][0]
    files = [file for file in plate["files"] if file["path"] != "a.tiff"]
    return {**document, "plates": [{**plate, "files": files, "file_list": ref, **changes}]}


def test_a_manifest_without_lists_is_the_document_it_always_was():
    """Its digest, and the fields it is written with, as the release before file lists computed them."""
    inline = parse(manifest())
    assert inline.digest() == "9c44f1543dc22f34b0360bac9b85773360c3f245aca6ac7107c6a0bdcad111c5"
    assert "file_list" not in inline.to_json()
    assert (
        parse({key: value for key, value in manifest().items() if key != "schema_version"}).digest() == inline.digest()
    )


def test_a_manifest_with_a_list_names_every_byte_through_it(tmp_path):
    indexed = parse(listed())
    assert BatchManifest.read(indexed.write(tmp_path / "manifest.json")) == indexed
    plate = indexed.plates[0]
    assert plate.file_count == 17_282
    assert plate.not_images == {file.path for file in plate.files}
    for change in ({"sha256": "1" * 64}, {"size_bytes": 1}, {"rows": 1}, {"path": "other"}):
        assert parse(listed({**LIST, **change})).digest() != indexed.digest()


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({**listed(), "schema_version": 1}, "schema_version 2"),
        (manifest(schema_version=2), "schema_version 1"),
        (listed(files=manifest()["plates"][0]["files"]), "a.tiff"),
        (listed(files=[]), "files"),
        (listed(files=[{"path": "load_data/p1.csv", "size_bytes": 1, "sha256": SHA}]), "platemaps/p1.csv"),
        (listed({**LIST, "path": "load_data/p1.csv"}), "none of its files"),
        (listed({**LIST, "path": "load_data"}), "as both"),
        (listed({**LIST, "path": "../list"}), "path"),
        (listed({**LIST, "rows": 0}), "rows"),
        (listed({**LIST, "rows": MAX_FILES_OF_A_PLATE + 1}), "rows"),
        (listed({**LIST, "rows": MAX_FILES_OF_A_PLATE - 1}), "at most 200000 files"),
        (listed({**LIST, "size_bytes": MAX_FILE_LIST_BYTES + 1}), "size_bytes"),
        (listed({**LIST, "size_bytes": 0}), "size_bytes"),
        (listed({**LIST, "sha256": "x"}), "sha256"),
        (listed({**LIST, "more": 1}), "more"),
        (listed({key: value for key, value in LIST.items() if key != "sha256"}), "sha256"),
        ({**listed(), "plates": [*listed()["plates"], {**listed()["plates"][0], "plate": "p2"}]}, "more than once"),
    ],
)
def test_a_plate_has_one_form_and_a_list_that_can_be_held_against_something(document, told):
    with pytest.raises(ContractError, match=told):
        parse(document)


@pytest.mark.parametrize("version", [3, 0, "2", 2.0, True, None])
def test_other_versions_are_told_with_those_that_are_read(version):
    with pytest.raises(ContractError) as caught:
        parse({**listed(), "schema_version": version})
    if version in (3, 0, "2", None):
        assert caught.value.problems[0].expected == "schema_version 1 or 2"
    assert isinstance(caught.value, NewerDocumentError) == (version == 3)


def test_a_plate_of_each_form_may_stand_in_one_batch():
    inline = manifest()["plates"][0]
    both = {**listed(), "plates": [*listed()["plates"], {**inline, "plate": "p2"}]}
    assert [plate.file_count for plate in parse(both).plates] == [17_282, 3]
    with pytest.raises(ContractError, match="as both"):
        parse(json.loads(json.dumps(both).replace('"a.tiff"', '"file_list"')))
