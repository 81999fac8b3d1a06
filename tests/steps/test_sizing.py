"""Memory asked of a cluster follows the batches' images, and is what the step needs to hold them."""

import json
import re

import pytest

from coda.config.load import load_params
from coda.contracts import BatchManifest
from coda.errors import ContractError
from coda.settings import Settings
from coda.steps.sizing import GIB, MOST_GIB, WITHOUT_IMAGES_GIB, memory_for, plan_memory
from coda.training.images import HOST_SHARE

FIELDS_OF_A_PLATE = 3456


@pytest.fixture
def params(root):
    return lambda *changes: load_params(root / "params.yaml", [], list(changes))


def gib(quantity):
    return int(re.fullmatch(r"([1-9][0-9]*)Gi", quantity)[1])


def held(fields, params):
    """Bytes of the images as `place_fields` counts them."""
    return fields * len(params.extractor.channels) * params.crops.centre**2


def test_what_is_asked_for_is_enough_to_hold_the_images(params):
    values = params()
    asked = [gib(memory_for(plates * FIELDS_OF_A_PLATE, values)) for plates in range(200)]
    assert asked[0] == WITHOUT_IMAGES_GIB
    assert asked == sorted(asked)
    assert asked[-1] == MOST_GIB, "200 plates are read from their stores"
    below = [(plates, size) for plates, size in enumerate(asked) if size < MOST_GIB]
    assert len(below) > 10
    for plates, size in below:
        images = held(plates * FIELDS_OF_A_PLATE, values)
        assert images <= HOST_SHARE * size * GIB, "place_fields leaves them in the stores"
        assert size * GIB - images / HOST_SHARE >= WITHOUT_IMAGES_GIB * GIB
        assert size * GIB - images / HOST_SHARE < (WITHOUT_IMAGES_GIB + 1) * GIB, "and not more than that"


def test_images_that_stay_where_they_are_need_none_and_those_that_must_be_held_all(params):
    assert gib(memory_for(10**6, params("compute.images=stored"))) == WITHOUT_IMAGES_GIB
    assert gib(memory_for(10**6, params("compute.images=host"))) > 1000


def manifest(tmp_path, plates, rows=17_280):
    files = [{"path": name, "size_bytes": 3, "sha256": "0" * 64} for name in ("map.csv", "load.csv")]
    listed = {"path": "files.parquet", "size_bytes": 9, "sha256": "0" * 64, "rows": rows}
    raw = {
        "schema_version": 2, "source": "lab", "batch": "b1", "created_at": "2026-01-01T00:00:00Z",
        "channels": ["DNA", "ER", "RNA", "AGP", "Mito"], "plate_wells": 384,
        "instrument": {"name": "scope", "modality": "widefield", "pixel_size_um": 0.5},
        "plates": [
            {"plate": f"p{n}", "plate_map": "map.csv", "load_data": "load.csv", "sites_per_well": 9, "files": files,
             "file_list": listed | {"path": f"{n}.parquet"}}
            for n in range(plates)
        ],
    }  # fmt: skip
    path = tmp_path / "manifest.json"
    path.write_text(BatchManifest.parse(json.dumps(raw), "test").to_json())
    return str(path)


@pytest.mark.parametrize("plates", [1, 4, 200])
def test_fields_are_counted_by_the_manifest_with_the_archive_where_it_is_read(params, tmp_path, plates):
    values, uris = params(), [manifest(tmp_path, plates)]
    own = plates * FIELDS_OF_A_PLATE
    settings = Settings.model_construct()
    assert plan_memory(uris, params=values, settings=settings, with_archive=False) == memory_for(own, values)
    with_archive = plan_memory(uris, params=values, settings=settings, with_archive=True)
    assert with_archive == memory_for(own + values.adaptation.archive_fields, values)
    first = params("adaptation.archive_batches=0")
    assert plan_memory(uris, params=first, settings=settings, with_archive=True) == memory_for(own, first)


def test_a_manifest_that_is_not_there_is_told(params, tmp_path):
    with pytest.raises(ContractError, match="cannot be used"):
        plan_memory(
            [str(tmp_path / "none.json")], params=params(), settings=Settings.model_construct(), with_archive=False
        )
