"""The contracts: strict, versioned, JSON in and out, schemas published."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.contracts import PUBLISHED, BatchManifest, FieldRecord
from coda.contracts.base import digest_of_json
from coda.errors import ContractError

SHA = "0" * 64


def manifest(**changes):
    files = [
        {"path": path, "size_bytes": 1, "sha256": SHA} for path in ("platemaps/p1.csv", "load_data/p1.csv", "a.tiff")
    ]
    plate = {
        "plate": "p1",
        "plate_map": "platemaps/p1.csv",
        "load_data": "load_data/p1.csv",
        "sites_per_well": 2,
        "files": files,
    }
    document = {
        "schema_version": 1,
        "source": "lab_a",
        "batch": "b1",
        "created_at": "2026-11-01T10:00:00Z",
        "instrument": {"name": "scope", "modality": "confocal", "pixel_size_um": 0.6},
        "channels": ["DNA", "ER"],
        "plate_wells": 384,
        "plates": [plate],
    }
    return {**document, **changes}


def parse(document):
    return BatchManifest.parse(json.dumps(document), "manifest.json")


def test_a_manifest_survives_the_round_trip(tmp_path):
    original = parse(manifest())
    assert original.batch_id == "lab_a/b1"
    assert original.created_at == datetime(2026, 11, 1, 10, tzinfo=UTC)
    path = original.write(tmp_path / "deep" / "manifest.json")
    assert BatchManifest.read(path) == original
    assert list(path.parent.iterdir()) == [path], "a draft was left behind"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"source": "lab a"}, "source"),
        ({"batch": "../b"}, "batch"),
        ({"channels": ["DNA", "Actin 2"]}, "channels.1"),
        ({"channels": ["DNA", "dna"]}, "channels.1"),
        ({"channels": ["Actin", "ACTIN"]}, "channels"),
        ({"channels": ["DNA", "none"]}, "channels.1"),
        ({"channels": [f"c{number}" for number in range(33)]}, "channels"),
        ({"roles": {"ER": "membrane"}}, "roles.ER"),
        ({"roles": {"Actin": "cytoplasm"}}, "manifest.json"),
        ({"roles": {"DNA": "nuclei", "ER": "nuclei"}}, "manifest.json"),
        ({"colours": {"ER": "green"}}, "colours.ER"),
        ({"channels": ["DNA", "DNA"]}, "manifest.json"),
        ({"plate_wells": 100}, "plate_wells"),
        ({"plates": []}, "plates"),
        ({"surprise": 1}, "surprise"),
        ({"created_at": "2026-11-01T10:00:00"}, "created_at"),
    ],
)
def test_what_is_wrong_is_named(change, where):
    with pytest.raises(ContractError) as caught:
        parse(manifest(**change))
    assert any(where in problem.where for problem in caught.value.problems), caught.value


def test_all_problems_come_together():
    with pytest.raises(ContractError) as caught:
        parse(manifest(source="", plate_wells=7, channels=["x y"]))
    places = {problem.where.split(": ")[1].split(".")[0] for problem in caught.value.problems}
    assert places == {"source", "plate_wells", "channels"}


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../b", "a\\b", "", "x" * 501])
def test_paths_stay_below_the_batch(path):
    document = manifest()
    document["plates"][0]["files"].append({"path": path, "size_bytes": 1, "sha256": SHA})
    with pytest.raises(ContractError):
        parse(document)


def test_a_table_that_is_not_among_the_files_is_refused():
    document = manifest()
    document["plates"][0]["plate_map"] = "elsewhere.csv"
    with pytest.raises(ContractError, match="elsewhere"):
        parse(document)


def test_a_file_listed_twice_is_refused():
    document = manifest()
    document["plates"][0]["files"] *= 2
    with pytest.raises(ContractError, match="more than once"):
        parse(document)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', b"\xff\xfe", '{"schema_version": 99}'])
def test_rubbish_is_refused_with_a_remedy(text):
    with pytest.raises(ContractError) as caught:
        BatchManifest.parse(text, "s3://b/manifest.json")
    assert caught.value.problems[0].remedy
    assert caught.value.exit_code == 3


def test_contracts_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        parse(manifest()).source = "other"


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_the_digest_knows_content_and_not_order(values):
    turned = dict(reversed(list(values.items())))
    assert digest_of_json(values) == digest_of_json(turned)
    assert digest_of_json({**values, "more": 1}) != digest_of_json({**values, "more": 2})


def test_published_schemas_are_current(root):
    folder = root / "docs" / "schemas"
    assert {path.stem for path in folder.glob("*.json")} == {contract.__name__ for contract in PUBLISHED}
    for contract in PUBLISHED:
        stored = json.loads((folder / f"{contract.__name__}.json").read_text())
        assert stored == contract.model_json_schema(), f"run `make schemas`: {contract.__name__} changed"


def test_no_contract_of_an_image_can_hold_a_mechanism():
    names = {name.lower() for name in FieldRecord.model_fields}
    assert not [name for name in names if "moa" in name or "mechanism" in name]
    row = {"source": "s", "batch": "b", "plate": "p", "well": "A01", "site": 1, "treatment": "t", "compound": "c"}
    more = {
        "pert_type": "trt",
        "pixel_size_um": 1.0,
        "instrument": "i",
        "channels": ["DNA"],
        "store": "s",
        "array": "a",
    }
    record = {**row, **more, "height": 4, "width": 4, "sha256": SHA, "crc32c": 1}
    assert FieldRecord.parse(json.dumps(record), "row").image_id == "s/b/p/A01/1"
    with pytest.raises(ContractError):
        FieldRecord.parse(json.dumps({**record, "moa": "x"}), "row")
