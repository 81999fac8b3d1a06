"""A hundred corruptions drawn at random: each ends in quarantine or a clear refusal, and the rest is untouched.

What is left of a plate with a damaged field must be, byte for byte, the plate that never had that field: an oracle that
holds although illumination and percentiles are those of all fields of a plate.
"""

import contextlib
import hashlib
import io
import json
import shutil
import signal
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from batches import SETTINGS, Delivery, deliver, file_entry
from corruptions import (
    FIELD_TABLES,
    HARMLESS,
    IMAGES,
    PLATES,
    block_of_zeros,
    flipped,
    put_table,
    table,
    truncated,
)

from coda.config import load_params
from coda.contracts import STAINS
from coda.errors import CodaError, ConfigError, ContractError, IntegrityError
from coda.plates.dataset import BatchFolder, load_fields, open_batches
from coda.plates.store import encode
from coda.plates.store_reading import read_arrays
from coda.steps.ingest import ingest

SEED = 20261125
DRAWN = 100
PATIENCE_S = 10
SHAPE = (40, 48)
WELLS = ("B02", "B03", "C02")

DELIVERY_KINDS = {**IMAGES, **FIELD_TABLES, **PLATES, **HARMLESS}


class HangingError(Exception):
    """Not of ours, so that no code under test can take it for an error it knows."""


@contextlib.contextmanager
def in_time():
    def late(*_):
        raise HangingError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome_of(call):
    """Return what a call returns, or the error of ours that it raises; any other error is a failure of the test."""
    try:
        with in_time():
            return call(), None
    except CodaError as error:
        return None, error


@pytest.fixture(scope="module")
def params(root):
    changes = ["ingest.workers=1", "ingest.illumination.min_fields=3", "quality.plate_quorum=0.5", "crops.centre=16"]
    changes += ["crops.global_size=16", "crops.local_size=8"]
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], changes)


def with_illumination(delivery):
    """Give the delivery an illumination function for each stain."""
    rng = np.random.default_rng(3)
    plate = delivery.manifest["plates"][0]
    plate["illumination"] = {}
    for stain in STAINS:
        buffer = io.BytesIO()
        np.save(buffer, (1 + 0.1 * rng.random(SHAPE)).astype(np.float32))
        path = f"illum/{stain}.npy"
        delivery.put(path, buffer.getvalue())
        plate["files"].append(file_entry(path, buffer.getvalue()))
        plate["illumination"][stain] = path
    delivery.write()
    return delivery


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return deliver(tmp_path_factory.mktemp("clean") / "lab_a" / "b1", wells=WELLS, shape=SHAPE)


@pytest.fixture(scope="module")
def lit(tmp_path_factory):
    return with_illumination(deliver(tmp_path_factory.mktemp("lit") / "lab_a" / "b1", wells=WELLS, shape=SHAPE))


def copied(delivery, folder):
    shutil.copytree(delivery.folder, folder / "lab_a" / "b1")
    return Delivery(folder / "lab_a" / "b1", json.loads(json.dumps(delivery.manifest)))


def pixels(dataset):
    """Return {(well, site): bytes} of every stored field of the one batch."""
    batch = BatchFolder(dataset / "lab_a" / "b1")
    index, found = batch.index, {}
    for store, rows in index.groupby("store"):
        shapes = [(len(STAINS), h, w) for h, w in zip(rows["height"], rows["width"], strict=True)]
        arrays = read_arrays(batch.path / store, rows["array"].tolist(), shapes)
        keys = zip(rows["Metadata_Well"], (int(site) for site in rows["Metadata_Site"]), strict=True)
        found |= {key: array.tobytes() for key, array in zip(keys, arrays, strict=True)}
    return found


@pytest.fixture(scope="module")
def without(params, tmp_path_factory):
    """The stored pixels of a clean delivery whose table never named these fields, made once for each set of fields."""
    known = {}

    def make(delivery, fields):
        key = (delivery.folder, frozenset(fields))
        if key not in known:
            folder = tmp_path_factory.mktemp("without")
            other = copied(delivery, folder / "in")
            path, frame = table(other, "load_data")
            named = [(well, int(site)) in fields for well, site in zip(frame["Metadata_Well"], frame["Metadata_Site"],
                                                                       strict=True)]  # fmt: skip
            put_table(other, path, frame[~np.array(named)])
            (report,) = ingest([other.uri], folder / "out", params=params, settings=SETTINGS)
            assert report.fields_accepted == 6 - len(fields)
            known[key] = pixels(folder / "out")
        return known[key]

    return make


def draw(kinds, count, salt):
    """Draw kinds, each once before any comes again, with a generator for its place."""
    rng = np.random.default_rng([SEED, salt])
    names = list(kinds)
    order = [str(name) for _ in range(-(-count // len(names))) for name in rng.permutation(names)][:count]
    return [pytest.param(name, [SEED, salt, number], id=f"{number}-{name}") for number, name in enumerate(order)]


def said(problems):
    """Whether each problem says in printable words where, what was found, what was expected and what to do."""
    return all(str(part).strip() and str(part).isprintable() for p in problems for part in (p.where, p.found, p.remedy))


@pytest.mark.parametrize(("kind", "seed"), draw(DELIVERY_KINDS, 55, 1))
def test_a_damaged_delivery_ends_in_quarantine_or_refusal(kind, seed, clean, params, without, tmp_path):
    delivery = copied(clean, tmp_path / "in")
    fields = DELIVERY_KINDS[kind](np.random.default_rng(seed), delivery)
    before = hashlib.sha256((delivery.folder / "manifest.json").read_bytes()).hexdigest()
    uri = str(delivery.folder / "manifest.json")
    report, error = outcome_of(lambda: ingest([uri], tmp_path / "out", params=params, settings=SETTINGS)[0])
    if error is not None:
        assert kind in PLATES, f"{kind} should not stop the whole delivery: {error}"
        assert isinstance(error, ContractError)
        assert error.problems
        assert said(error.problems), str(error)
        assert not list((tmp_path / "out").rglob("*.ome.zarr.zip"))
        return
    if kind in HARMLESS:
        assert report.quarantined == ()
        assert pixels(tmp_path / "out") == without(clean, ())
        return
    aside = {(item.well, item.site) for item in report.quarantined}
    assert all(item.reason.strip() and item.reason.isprintable() for item in report.quarantined)
    (plate,) = report.plates
    if plate.outcome == "refused":
        assert kind in PLATES, f"{kind} refused the plate: {plate.reason}"
        assert plate.reason.isprintable()
        assert plate.reason.strip()
        assert said(report.problems)
        assert not list((tmp_path / "out").rglob("*.ome.zarr.zip"))
        return
    assert fields is not None, f"{kind} was taken as if nothing had happened"
    assert aside == fields
    assert pixels(tmp_path / "out") == without(clean, fields)
    assert hashlib.sha256((delivery.folder / "manifest.json").read_bytes()).hexdigest() == before


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def giant_header(_, data):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (40000, 48000), }"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data[128:]


def changed(place, value):
    def change(rng, data):
        array = np.load(io.BytesIO(data))
        array[place(rng)] = value
        return npy(array)

    return change


def anywhere(rng):
    return tuple(int(rng.integers(side)) for side in SHAPE)


FUNCTIONS = {
    "cut off": truncated,
    "not a number": changed(anywhere, np.nan),
    "infinite": changed(anywhere, np.inf),
    "zero": changed(anywhere, 0.0),
    "negative": changed(anywhere, -1.0),
    "turned": lambda _, data: npy(np.load(io.BytesIO(data)).T.copy()),
    "other shape": lambda _, data: npy(np.load(io.BytesIO(data))[1:]),
    "three axes": lambda _, data: npy(np.load(io.BytesIO(data))[None]),
    "integers": lambda _, data: npy((np.load(io.BytesIO(data)) * 10).astype(np.int32)),
    "text": lambda _, data: npy(np.full(SHAPE, "x")),
    "pickled objects": lambda _, data: npy(np.full(SHAPE, None), allow_pickle=True),
    "giant in its header": giant_header,
    "no array": lambda rng, data: rng.bytes(len(data)),
    "empty": lambda _, data: b"",
}


@pytest.mark.parametrize(("kind", "seed"), draw(FUNCTIONS, 14, 2))
def test_a_damaged_illumination_function_refuses_its_plate(kind, seed, lit, params, tmp_path):
    rng = np.random.default_rng(seed)
    delivery = copied(lit, tmp_path / "in")
    path = f"illum/{rng.choice(STAINS)}.npy"
    listed = bool(rng.integers(2))
    delivery.put(path, FUNCTIONS[kind](rng, (delivery.folder / path).read_bytes()), list_it=listed)
    delivery.write()
    tracemalloc.start()
    try:
        with in_time():
            (report,) = ingest([delivery.uri], tmp_path / "out", params=params, settings=SETTINGS)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert report.fields_accepted == 0
    assert path in report.problems[0].where
    assert said(report.problems)


def other_pixels(folder, store, rng):
    """Put another field's chunk, sound in itself, under one field's name."""
    from zipfile import ZIP_STORED, ZipFile

    path = folder / store
    with ZipFile(path) as file:
        entries = [(entry, file.read(entry)) for entry in file.infolist()]
    chunks = [number for number, (entry, _) in enumerate(entries) if entry.filename.endswith("/c/0/0/0")]
    wrong = encode(rng.integers(0, 255, (5, SHAPE[0] // 2, SHAPE[1] // 2)).astype(np.uint8))
    with ZipFile(path, "w", ZIP_STORED) as file:
        chosen = int(rng.choice(chunks))
        for number, (entry, data) in enumerate(entries):
            file.writestr(entry, wrong if number == chosen else data)


def on_file(name, change):
    def damage(folder, store, rng):
        path = folder / (store if name == "store" else name)
        path.write_bytes(change(rng, path.read_bytes()))

    return damage


def in_directory(rng, data):
    start = data.rindex(b"PK\x05\x06")
    first = data.index(b"PK\x01\x02")
    place = int(rng.integers(first, start + 22))
    return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]


def on_index(change):
    def damage(folder, store, rng):
        frame = pd.read_parquet(folder / "index.parquet")
        change(rng, frame).to_parquet(folder / "index.parquet", index=False)

    return damage


def other_value(rng, frame):
    column = str(rng.choice(["sha256", "crc32c", "height", "array", "store", "channels"]))
    row = int(rng.integers(len(frame)))
    values = {
        "sha256": "0" * 64, "crc32c": 1, "height": int(rng.choice([0, -1, 7, 2**31])),
        "array": str(rng.choice(["../x", "", "B/2/99/0"])),
        "store": str(rng.choice(["../../other.zip", "/etc/passwd", "", "gone.ome.zarr.zip"])), "channels": "DNA",
    }  # fmt: skip
    frame.loc[row, column] = values[column]
    return frame


def missing_values(rng, frame):
    column = str(rng.choice(["sha256", "array", "store", "Metadata_Plate", "channels"]))
    frame[column] = frame[column].astype(object)
    frame.loc[int(rng.integers(len(frame))), column] = None
    return frame


STORED = {
    "store: bit flipped": on_file("store", flipped),
    "store: cut off": on_file("store", truncated),
    "store: block of zeros": on_file("store", block_of_zeros),
    "store: directory": on_file("store", in_directory),
    "store: no zip": on_file("store", lambda rng, data: rng.bytes(len(data))),
    "store: another field's chunk": other_pixels,
    "store: gone": lambda folder, store, rng: (folder / store).unlink(),
    "store: a folder": lambda folder, store, rng: ((folder / store).unlink(), (folder / store).mkdir()),
    "index: cut off": on_file("index.parquet", truncated),
    "index: bit flipped": on_file("index.parquet", flipped),
    "index: no parquet": on_file("index.parquet", lambda rng, data: rng.bytes(len(data))),
    "index: other value": on_index(other_value),
    "index: value missing": on_index(missing_values),
    "index: column lost": on_index(
        lambda rng, frame: frame.drop(columns=str(rng.choice(["store", "array", "sha256", "Metadata_Plate", "height"])))
    ),
    "report: cut off": on_file("ingest.json", truncated),
    "manifest: cut off": on_file("manifest.json", truncated),
}


@pytest.fixture(scope="module")
def stored(clean, params, tmp_path_factory):
    out = tmp_path_factory.mktemp("stored")
    ingest([clean.uri], out, params=params, settings=SETTINGS)
    return out


@pytest.mark.parametrize(("kind", "seed"), draw(STORED, 32, 3))
def test_a_damaged_batch_is_an_error_or_gives_the_pixels_that_were_stored(kind, seed, stored, tmp_path):
    rng = np.random.default_rng(seed)
    shutil.copytree(stored, tmp_path / "d")
    folder = tmp_path / "d" / "lab_a" / "b1"
    STORED[kind](folder, "b1_p1.ome.zarr.zip", rng)
    whole = load_fields(open_batches(stored), STAINS, 16)
    expected = dict(zip(whole.table["image_id"], whole.images, strict=True))
    found, error = outcome_of(lambda: load_fields(open_batches(tmp_path / "d"), STAINS, 16))
    if error is not None:
        assert isinstance(error, IntegrityError | ContractError | ConfigError)
        assert error.problems
        assert said(error.problems), str(error)
        return
    assert kind not in {"store: no zip", "store: gone", "store: a folder", "store: another field's chunk"}
    for name, image in zip(found.table["image_id"], found.images, strict=True):
        assert name in expected
        assert np.array_equal(image, expected[name]), kind
    assert found.table.equals(whole.table), f"{kind} changed what is said of a field"


def test_what_was_drawn_is_a_hundred_and_every_kind() -> None:
    drawn = [*draw(DELIVERY_KINDS, 55, 1), *draw(FUNCTIONS, 14, 2), *draw(STORED, 32, 3)]
    kinds = {item.values[0] for item in drawn}
    assert len(drawn) >= DRAWN
    assert kinds >= {*DELIVERY_KINDS, *FUNCTIONS, *STORED}
