"""Deliveries that mean harm: small files that unpack to giants, sizes that lie, names that break what prints them."""

import io
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches import SETTINGS, deliver
from botocore.response import StreamingBody

from coda.contracts import manifest as manifest_module
from coda.errors import ContractError, IntegrityError
from coda.plates.plate_map_reading import read_wells
from coda.plates.readers.xml import UnsafeXmlError, parse_xml
from coda.plates.store import encode
from coda.plates.store_reading import read_arrays
from coda.plates.tabular import rows
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import Table, read_table
from coda.steps import ingest as ingest_module
from coda.steps.ingest import ingest


def parquet(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def test_a_parquet_whose_text_is_not_utf8_is_told():
    array = pa.array(["well", "plate"]).cast(pa.binary())
    raw = pa.Array.from_buffers(pa.string(), 2, [None, array.buffers()[1], pa.py_buffer(b"we\xffl" + b"plate")])
    with pytest.raises(UnreadableTableError, match="damaged parquet"):
        read_table(parquet(pa.table({"a": raw})))


def test_a_parquet_of_some_hundred_bytes_does_not_become_gigabytes():
    # built as what it is: one text, and 200,000 rows that repeat it
    rows = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200_000, np.int32)), ["x" * 100_000])
    bomb = parquet(pa.table({"Metadata_Well": rows}))
    assert len(bomb) < 50_000, "the bomb is none"
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)  # its peak is that of this reading alone, whatever other tests left behind
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(UnreadableTableError, match="unpacks to more"):
            read_table(bomb)
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < 64 * 2**20, "20 GB, were it unpacked"


@pytest.mark.parametrize("data", [b"a\n" * 1_100_000, b"," * 3_000 + b"\n1\n"])
def test_a_csv_with_too_many_lines_or_columns_is_refused_before_it_is_parsed(data, monkeypatch):
    monkeypatch.setattr(rows, "_Attempt", lambda *_, **__: pytest.fail("it was parsed"))
    with pytest.raises(UnreadableTableError, match="too many for a plate"):
        read_table(data)


def test_a_parquet_with_lists_is_no_table():
    nested = pa.table({"a": pa.array([[1, 2]]), "b": pa.array([{"c": 1}])})
    with pytest.raises(UnreadableTableError, match="lists or records"):
        read_table(parquet(nested))


def test_a_parquet_of_every_plain_type_is_still_read():
    table = pa.table(
        {
            "text": pa.array(["a", None]), "categories": pa.array(["x", "y"]).dictionary_encode(),
            "whole": pa.array([1, None]), "real": pa.array([0.5, 2.0]), "flag": pa.array([True, False]),
            "large": pa.array(["q", "r"], pa.large_string()),
        }
    )  # fmt: skip
    assert read_table(parquet(table)).to_dict("list") == {
        "text": ["a", ""], "categories": ["x", "y"], "whole": ["1", ""], "real": ["0.5", "2"],
        "flag": ["True", "False"], "large": ["q", "r"],
    }  # fmt: skip


def wells(**changes):
    row = {
        "Metadata_Plate": "p1", "Metadata_Well": "A01", "Metadata_Compound": "c", "Metadata_Treatment": "t",
        "Metadata_pert_type": "trt", "Metadata_Dose_uM": "1",
    }  # fmt: skip
    return read_wells(Table(pd.DataFrame([row | changes], index=[2])), where="map.csv", plate="p1", wells=96)[:2]


@pytest.mark.parametrize("name", ["x" * 201, "a\nb", "a\x1b[31mred", "a\0b"])
def test_names_of_a_plate_map_are_short_and_on_one_line(name):
    found, problems = wells(Metadata_Compound=name)
    assert found == []
    assert "Metadata_Compound" in problems[0].found
    assert len(str(problems[0])) < 400
    assert str(problems[0]).isprintable()


def test_names_with_signs_and_letters_of_any_language_pass():
    for name in ("(+)-JQ1", "=cmd", "5-氟尿嘧啶", "<b>x</b>", "β-lapachone"):
        found, problems = wells(Metadata_Compound=name)
        assert (found[0].compound, problems) == (name, [])


def test_an_object_larger_than_its_manifest_says_is_never_read(moto_server, small_params, tmp_path, monkeypatch):
    delivery = deliver(tmp_path / "in", sites=3)
    store = moto_server.bucket()
    store.upload_folder(delivery.folder, "b")
    giant = delivery.images()[0]
    promised = (delivery.folder / giant).stat().st_size
    store.put(f"b/{giant}", b"\0" * 20_000_000)
    read, whole = StreamingBody.read, []

    def reading(body, amt=None):
        data = read(body, amt)
        whole.append(len(data))
        return data

    monkeypatch.setattr(StreamingBody, "read", reading)
    settings = SETTINGS.model_copy(update={"s3_endpoint": moto_server.endpoint})
    (report,) = ingest([f"{store.uri}/b/manifest.json"], tmp_path / "out", params=small_params(), settings=settings)
    assert max(whole) < 1_000_000
    assert report.fields_accepted == 11
    assert f"has 20000000 bytes where the manifest says {promised}" in report.quarantined[0].reason


def test_a_manifest_too_large_is_refused_unread(small_params, tmp_path, monkeypatch):
    delivery = deliver(tmp_path / "in")
    for module in (manifest_module, ingest_module):
        monkeypatch.setattr(module, "MAX_MANIFEST_BYTES", 100)
    monkeypatch.setattr("coda.plates.batch_files.LocalFiles.read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ContractError, match="at most 100"):
        ingest([delivery.write()], tmp_path / "out", params=small_params(), settings=SETTINGS)


def store_with(path, data, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("A/1/0/0/c/0/0/0", data)
    return path


def test_a_plate_store_with_packed_or_oversized_entries_is_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    shape = (1, 16, 16)
    chunk = encode(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8))
    sound = store_with(tmp_path / "sound.zip", chunk)
    assert next(read_arrays(sound, ["A/1/0/0"], [shape])).shape == shape
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    packed = store_with(tmp_path / "packed.zip", b"\0" * 50_000_000, compression=zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 100_000
    large = store_with(tmp_path / "large.zip", b"\0" * 50_000)
    for store in (packed, large):
        with pytest.raises(IntegrityError, match="no stored entry"):
            list(read_arrays(store, ["A/1/0/0"], [shape]))


def test_an_encrypted_or_mangled_entry_is_an_integrity_error(tmp_path):
    path = store_with(tmp_path / "a.zip", encode(np.zeros((1, 16, 16), np.uint8)))
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1  # "encrypted"
    data[6] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="damaged"):
        list(read_arrays(path, ["A/1/0/0"], [(1, 16, 16)]))


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE x [" + "".join(f'<!ENTITY a{k} "&a{k - 1};&a{k - 1};">' for k in range(1, 40)) + "]><x>&a39;</x>",
        '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://evil/x.dtd"> %p;]><x/>',
        '<!DOCTYPE x SYSTEM "http://evil/x.dtd"><x/>',
        "<x>&undefined;</x>",
        "<x" + "\0" + "/>",
    ],
)
def test_xml_that_expands_or_fetches_is_refused(text):
    with pytest.raises(UnsafeXmlError):
        parse_xml(text.encode())


def test_xml_nested_by_the_hundred_thousand_does_not_end_the_process():
    depth = 200_000
    with pytest.raises(UnsafeXmlError, match="more than 64 deep"):
        parse_xml(b"<a>" * depth + b"</a>" * depth)
