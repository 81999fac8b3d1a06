"""A plate whose light is known before its images are read once; the result is that of reading them twice."""

import pytest
from batches import deliver
from test_preparing import light, npy, prepared, with_functions

from coda.plates import work
from coda.plates.reading import read_fields
from coda.plates.scratch import Scratch

FIELDS, SHOWN = 8, 2


def given(folder):
    return with_functions(deliver(folder), lambda stain: npy(light(stain)))


WAYS = {
    "given": (given, ()),
    "off": (deliver, ("ingest.illumination.enabled=false",)),
    "prepared": (prepared, ()),
}


def files(folder):
    """Return name -> bytes of what an ingest left."""
    left = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in left.items()}


@pytest.fixture
def readings(monkeypatch):
    counts = []
    monkeypatch.setattr(work, "read_fields", lambda *args: counts.append(len(args[1])) or read_fields(*args))
    return counts


@pytest.mark.parametrize("way", WAYS)
def test_one_pass_gives_the_bytes_of_two(tmp_path, run, readings, way):
    make, changes = WAYS[way]
    delivery = make(tmp_path / "in")
    delivery.put(delivery.images()[7], b"no image")  # one field of eight is set aside on the way
    delivery.write()
    changes = (*changes, "quality.plate_quorum=0.5", "ingest.plate_high_percentile=100")
    kept = {}
    for gib in (40, 0):
        readings.clear()
        report = run(delivery, f"ingest.scratch_gib={gib}", *changes, out=tmp_path / str(gib))
        assert report.plates[0].illumination == way
        assert (report.fields_accepted, len(report.quarantined)) == (FIELDS - 1, 1)
        kept[gib] = files(tmp_path / str(gib))
        # without room all are read twice, else those alone of which small pictures are made
        assert sum(readings) == FIELDS + {40: SHOWN, 0: FIELDS - 1}[gib]
    assert kept[40] == kept[0]


@pytest.mark.parametrize("percentile", [98, 99.9])
def test_fields_brighter_than_the_plates_percentile_are_made_again(tmp_path, run, readings, percentile):
    delivery = given(tmp_path / "in")
    change = f"ingest.plate_high_percentile={percentile}"
    run(delivery, "ingest.scratch_gib=40", change, out=tmp_path / "one")
    again = sum(readings) - FIELDS
    run(delivery, "ingest.scratch_gib=0", change, out=tmp_path / "two")
    assert SHOWN < again <= FIELDS
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_draft_that_the_disk_lost_is_made_again(tmp_path, run, readings, monkeypatch):
    delivery = given(tmp_path / "in")
    change = "ingest.plate_high_percentile=100"
    run(delivery, change, out=tmp_path / "whole")
    readings.clear()
    monkeypatch.setattr(Scratch, "pick", lambda self, name: None)
    run(delivery, change, out=tmp_path / "lost")
    assert sum(readings) == 2 * FIELDS
    assert files(tmp_path / "whole") == files(tmp_path / "lost")
