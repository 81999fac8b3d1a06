"""How stored pixels were prepared, against what a model was trained on."""

import pytest

from coda.errors import ConfigError
from coda.plates.preparation import Prepared, known_parameters, record_of, require_prepared

HOW = {
    "preparation": "raw", "ingest.scaling_factor": 0.5, "ingest.low_percentile": 0.05,
    "ingest.illumination.enabled": True, "ingest.illumination.floor_percentile": 2.0,
}  # fmt: skip


def plate(name="p1", sizes=(1.2, 1.2), **changes):
    how = {**HOW, **{path.replace("__", "."): value for path, value in changes.items()}}
    return Prepared(how, sizes, f"/data/{name}.ome.zarr.zip")


def test_plates_like_the_training_plates_are_read():
    record = record_of([plate(), plate("p2", (1.3, 1.3))])
    assert record["pixel_size_um"] == [1.2, 1.3]
    assert require_prepared([plate("p3", (1.1, 1.1))], record, "m") == []
    assert known_parameters(record)["ingest.scaling_factor"] == 0.5
    assert "preparation" not in known_parameters(record)


@pytest.mark.parametrize(
    ("changes", "where", "found", "expected"),
    [
        ({"ingest__scaling_factor": 1.0}, "ingest.scaling_factor", "1.0", "0.5"),
        ({"ingest__low_percentile": 1.0}, "ingest.low_percentile", "1.0", "0.05"),
        ({"ingest__illumination__enabled": False}, "ingest.illumination.enabled", "False", "True"),
        ({"preparation": "deepprofiler"}, "preparation", "'deepprofiler'", "'raw'"),
    ],
)
def test_another_preparation_is_refused_with_both_values(changes, where, found, expected):
    with pytest.raises(ConfigError) as caught:
        require_prepared([plate(), plate("p2", **changes)], record_of([plate()]), "coda-extractor version 1")
    (problem,) = caught.value.problems
    assert problem.where == f"/data/p2.ome.zarr.zip: {where}"
    assert problem.found == found
    assert problem.expected == f"{expected}, recorded in config.json of coda-extractor version 1"


@pytest.mark.parametrize("size", [0.6, 2.4])
def test_pixels_of_another_objective_are_refused(size):
    with pytest.raises(ConfigError, match=f"{size} um.*about 1.2 to 1.2 um"):
        require_prepared([plate(sizes=(size, size))], record_of([plate()]), "m")


def test_a_model_of_several_preparations_reads_each_of_them():
    record = record_of([plate(), plate("p2", ingest__scaling_factor=1.0)])
    assert require_prepared([plate(), plate("p3", ingest__scaling_factor=1.0)], record, "m") == []
    assert "ingest.scaling_factor" not in known_parameters(record)
    with pytest.raises(ConfigError):
        require_prepared([plate(ingest__scaling_factor=0.25)], record, "m")


def test_what_no_record_tells_is_said_and_refuses_nothing():
    (note,) = require_prepared([plate()], {}, "coda-extractor version 1")
    assert "no record tells" in note
    bare = Prepared({"preparation": "raw"}, (1.2, 1.2), "/data/p9")
    (note,) = require_prepared([bare], record_of([plate()]), "m")
    assert "/data/p9" in note
    # parameters that only one side knows, because they are newer, are no difference
    assert require_prepared([plate(ingest__newer=1)], record_of([plate()]), "m") == []
