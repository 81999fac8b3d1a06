"""The function of an earlier plate: used where parameters name it, recorded, and never for another instrument."""

import hashlib

import numpy as np
import pytest
from batches import deliver
from test_one_pass import files
from test_preparing import light, npy, with_functions
from typer.testing import CliRunner

from coda.cli.plates import app
from coda.errors import ConfigError
from coda.plates import work
from coda.plates.dataset import BatchFolder
from coda.plates.earlier_illumination import read_earlier
from coda.plates.reading import read_fields

PLATE = "b1_p1"
UNLIKE = [("pixel_size_um", 1.3, "1.3 um"), ("modality", "confocal", "confocal")]


@pytest.fixture
def first(tmp_path, run):
    """A delivery, the file with the function of its plate, and the setting that the command tells."""
    delivery = deliver(tmp_path / "in")
    run(delivery, out=tmp_path / "first")
    file = tmp_path / "light.npz"
    folder = tmp_path / "first" / "lab_a" / "b1"
    told = CliRunner().invoke(app, ["illumination", str(folder), "--plate", PLATE, "--out", str(file)])
    assert told.exit_code == 0, told.output
    return delivery, file, told.output.replace("\n", " ").partition("--set '")[2].strip().removesuffix("'")


def test_the_named_function_gives_its_own_plate_the_same_pixels_in_one_reading(tmp_path, run, first, monkeypatch):
    delivery, file, setting = first
    readings = []
    monkeypatch.setattr(work, "read_fields", lambda *args: readings.append(len(args[1])) or read_fields(*args))
    (plate,) = run(delivery, setting, "ingest.plate_high_percentile=100").plates
    assert (plate.illumination, plate.fields_accepted) == ("earlier", 8)
    assert plate.illumination_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert sum(readings) == 8 + 2, "all once, and those again of which small pictures are made"
    run(delivery, "ingest.plate_high_percentile=100", out=tmp_path / "estimated")
    indexes = [BatchFolder(tmp_path / out / "lab_a" / "b1").index for out in ("out", "estimated")]
    assert indexes[0].equals(indexes[1]), "the same pixels (sha256) and statistics"


def test_it_decides_the_content_key_and_an_empty_one_changes_nothing(tmp_path, run, first):
    delivery, _, setting = first
    plain = files(tmp_path / "first")
    named = run(delivery, setting, out=tmp_path / "named").plates[0].content_key
    unnamed = run(delivery, "ingest.earlier_illumination={}", out=tmp_path / "unnamed").plates[0].content_key
    assert named != unnamed
    assert files(tmp_path / "unnamed") == plain


def test_delivered_functions_and_other_instruments_go_without(tmp_path, run, first):
    _, _, setting = first
    given = with_functions(deliver(tmp_path / "given"), lambda stain: npy(light(stain)))
    assert run(given, setting, out=tmp_path / "a").plates[0].illumination == "given"
    other = deliver(tmp_path / "other")
    other.manifest["instrument"]["name"] = "another microscope"
    other.write()
    assert run(other, setting, out=tmp_path / "b").plates[0].illumination == "estimated"
    off = "ingest.illumination.enabled=false"
    plate = run(deliver(tmp_path / "off"), setting, off, out=tmp_path / "c").plates[0]
    assert (plate.illumination, plate.illumination_sha256) == ("off", None)


@pytest.mark.parametrize(("key", "value", "words"), UNLIKE)
def test_a_plate_that_it_does_not_fit_is_refused(tmp_path, run, first, key, value, words):
    _, _, setting = first
    delivery = deliver(tmp_path / "unlike")
    assert delivery.manifest["instrument"][key] != value
    delivery.manifest["instrument"][key] = value
    delivery.write()
    report = run(delivery, setting)
    assert report.plates[0].outcome == "refused"
    (problem,) = report.problems
    assert words in problem.found
    assert "lab_a/b1/b1_p1" in problem.expected


def test_another_file_is_an_error_before_anything_is_read(tmp_path, run, first):
    delivery, file, setting = first
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ConfigError, match="another file"):
        run(delivery, setting)
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        run(delivery, setting)
    assert not list((tmp_path / "out").rglob("ingest.json"))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", npy(np.ones(3))])
def test_what_is_no_such_file_is_told(data):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_earlier(data, hashlib.sha256(data).hexdigest(), "somewhere")


def test_a_plate_without_a_function_of_its_own_gives_none(tmp_path, run):
    run(deliver(tmp_path / "in"), "ingest.illumination.enabled=false")
    folder, out = tmp_path / "out" / "lab_a" / "b1", tmp_path / "x.npz"
    for plate in (PLATE, "p9"):
        told = CliRunner().invoke(app, ["illumination", str(folder), "--plate", plate, "--out", str(out)])
        assert isinstance(told.exception, ConfigError)
    assert not out.exists()
