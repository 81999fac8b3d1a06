"""Kinds of damage that a delivery or a stored batch can have, each applied at a place that a generator draws.

A kind of damage to a delivery returns the fields it is about (to be set aside or left as they are), or None when it is
about a whole plate or batch. `HARMLESS` kinds change nothing that matters: the result must be that of the clean one.
"""

import gzip
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from coda.contracts import STAINS

FieldKey = tuple[str, int]


def some_image(rng, delivery):
    """Draw one image of the delivery: its path, and the field (well, site) it belongs to."""
    path = str(rng.choice(delivery.images()))
    name = path.rsplit("/", 1)[1].removesuffix(".tiff")
    well, site, _ = name.split("_")
    return path, (well, int(site[1:]))


def on_image(change, *, listed):
    """Make a kind of damage of a function from (rng, old bytes, delivery) to new bytes of one image.

    `listed` damage came before the manifest was written (its digest is that of the damaged file), other damage after.
    """

    def damage(rng, delivery):
        path, field = some_image(rng, delivery)
        delivery.put(path, change(rng, (delivery.folder / path).read_bytes(), delivery), list_it=listed)
        delivery.write()
        return {field}

    return damage


def pixels_of(data):
    return tifffile.imread(io.BytesIO(data))


def saved(image, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def truncated(rng, data, _=None):
    return data[: int(rng.integers(1, len(data) - 1))]


def flipped(rng, data, _=None):
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]


def block_of_zeros(rng, data, _=None):
    start = int(rng.integers(len(data) // 2))
    stop = start + max(8, len(data) // 4)
    return data[:start] + b"\0" * (min(stop, len(data)) - start) + data[stop:]


def of_another_field(rng, data, delivery):
    others = [path for path in delivery.images() if (delivery.folder / path).read_bytes() != data]
    return (delivery.folder / str(rng.choice(others))).read_bytes()


def foreign(rng, data, _):
    jpeg = io.BytesIO()
    Image.fromarray((pixels_of(data) // 256).astype(np.uint8)).save(jpeg, "JPEG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("image.tiff", data)
    found = [
        jpeg.getvalue(), archive.getvalue(), gzip.compress(data), b"<html>404 not found</html>",
        b"\x89HDF\r\n\x1a\n" + data, rng.bytes(3000), b"",
        b"II*\0", b"II*\0" + rng.bytes(400), b"\x89PNG\r\n\x1a\n" + rng.bytes(200),
    ]  # fmt: skip
    return found[int(rng.integers(len(found)))]


def other_pixels(rng, data, _):
    image = pixels_of(data)
    colours = np.stack([image] * 3, axis=-1)
    png = io.BytesIO()
    Image.fromarray((colours // 256).astype(np.uint8)).save(png, "PNG")
    found = [
        saved(image[:-3]), saved(image.T.copy()), saved(np.pad(image, 4)), saved(image[:5, :5]),
        saved(image.astype(np.float32)), saved(image.astype(np.int16)), saved(image.astype(np.uint32)),
        saved(image.astype(np.float64)), saved(colours, photometric="rgb"), png.getvalue(),
        saved(np.stack([image, image])), saved(image > 500), saved(image.astype(np.complex64)),
    ]  # fmt: skip
    return found[int(rng.integers(len(found)))]


def blank(rng, data, _):
    return saved(np.full_like(pixels_of(data), int(rng.choice([0, 7, 65535]))))


def absurd_header(rng, data, _):
    """Change width or height in the TIFF's header, where it stands as a tag of two or four bytes."""
    raw = bytearray(saved(pixels_of(data)))
    (start,) = struct.unpack("<I", raw[4:8])
    (count,) = struct.unpack("<H", raw[start : start + 2])
    wanted = int(rng.choice([256, 257, 258, 277]))
    for number in range(count):
        entry = start + 2 + 12 * number
        if struct.unpack("<H", raw[entry : entry + 2])[0] == wanted:
            value = int(rng.choice([0, 2**31 - 1, 2**32 - 1, 70_000, 1_000_000_007]))
            raw[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(raw)


def bomb(rng, data, _):
    """A strip of a few hundred bytes that unpacks to far more than the picture has."""
    image = pixels_of(data)
    strip = zlib.compress(b"\0" * 16_000_000, 9)
    raw = saved(image, compression="zlib", rowsperstrip=image.shape[0])
    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        offset = file.pages.first.tags["StripOffsets"].valueoffset
        length = file.pages.first.tags["StripByteCounts"].valueoffset
    out = bytearray(raw)
    out[offset : offset + 4] = struct.pack("<I", len(raw))
    out[length : length + 4] = struct.pack("<I", len(strip))
    return bytes(out) + strip


def lzw_bomb(rng, data, _):
    """Rows by the thousand in a header before an LZW strip of some bytes."""
    raw = bytearray(saved(pixels_of(data), compression="lzw"))
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as file:
        tags = file.pages.first.tags
        for name in ("ImageLength", "RowsPerStrip", "ImageWidth"):
            place = tags[name].valueoffset
            raw[place : place + 2] = struct.pack("<H", 60_000)
            raw[place - 6 : place - 4] = struct.pack("<H", 3)
    return bytes(raw)


def missing(rng, delivery):
    path, field = some_image(rng, delivery)
    (delivery.folder / path).unlink()
    return {field}


def folder_instead(rng, delivery):
    path, field = some_image(rng, delivery)
    (delivery.folder / path).unlink()
    (delivery.folder / path).mkdir()
    return {field}


def link_out(rng, delivery):
    """The same bytes, but behind a link that leads out of the delivery."""
    path, field = some_image(rng, delivery)
    outside = delivery.folder.parent / "outside.tiff"
    outside.write_bytes((delivery.folder / path).read_bytes())
    (delivery.folder / path).unlink()
    (delivery.folder / path).symlink_to(outside)
    return {field}


def link_in_a_circle(rng, delivery):
    path, field = some_image(rng, delivery)
    (delivery.folder / path).unlink()
    (delivery.folder / path).symlink_to(delivery.folder / path)
    return {field}


def table(delivery, kind, plate=0):
    path = delivery.manifest["plates"][plate][kind]
    return path, pd.read_csv(delivery.folder / path, dtype=str, keep_default_na=False)


def put_table(delivery, path, frame):
    delivery.put(path, frame.to_csv(index=False).encode())
    delivery.write()


def on_table(kind, change, *, fields=False):
    """Make a kind of damage of a function from (rng, table) to a table (and, with `fields`, the fields it is about)."""

    def damage(rng, delivery):
        path, frame = table(delivery, kind)
        found = change(rng, frame)
        frame, about = found if fields else (found, None)
        put_table(delivery, path, frame)
        return about

    return damage


def on_bytes(kind, change):
    def damage(rng, delivery):
        path = delivery.manifest["plates"][0][kind]
        delivery.put(path, change(rng, (delivery.folder / path).read_bytes()))
        delivery.write()

    return damage


def some_cell(rng, frame, columns, value):
    row = int(rng.integers(len(frame)))
    frame.loc[row, str(rng.choice(columns))] = value
    return row


def emptied_cell(rng, frame):
    columns = [name for name in frame if name.startswith("FileName_Orig")]
    row = some_cell(rng, frame, columns, str(rng.choice(["", "nan", "NaN"])))
    return frame, {(frame["Metadata_Well"][row], int(frame["Metadata_Site"][row]))}


def wrong_file_name(rng, frame):
    columns = [name for name in frame if name.startswith("FileName_Orig")]
    value = str(
        rng.choice(["../../../etc/passwd", "/etc/passwd", "nowhere.tiff", "..", "a\0b.tiff", "s3://b/k.tiff", "%2e"])
    )
    row = some_cell(rng, frame, columns, value)
    return frame, {(frame["Metadata_Well"][row], int(frame["Metadata_Site"][row]))}


def one_file_twice(rng, frame):
    columns = [name for name in frame if name.startswith("FileName_Orig")]
    a, b = (int(row) for row in rng.choice(len(frame), 2, replace=False))
    column = str(rng.choice(columns))
    frame.loc[a, column] = frame.loc[b, column]
    frame.loc[a, column.replace("FileName", "PathName")] = frame.loc[b, column.replace("FileName", "PathName")]
    return frame, {(frame["Metadata_Well"][row], int(frame["Metadata_Site"][row])) for row in (a, b)}


def repeated_row(rng, frame):
    return pd.concat([frame, frame.iloc[[int(rng.integers(len(frame)))]]])


def renamed_stain(rng, frame):
    stain = str(rng.choice(STAINS))
    return frame.rename(
        columns=lambda name: name.replace(f"Orig{stain}", f"Orig{rng.choice(['Actin', 'dna', '', 'Ch1'])}")
    )


def lost_column(rng, frame):
    """Lose a column that is needed: the folder of a file and the plate's name are not."""
    needed = [name for name in frame if name.startswith(("FileName_", "Metadata_Well", "Metadata_Site"))]
    return frame.drop(columns=str(rng.choice(needed)))


def wrong_well(rng, frame):
    some_cell(rng, frame, ["Metadata_Well"], str(rng.choice(["Z99", "", "B", "A01:B02", "P25", "1", "H13"])))
    return frame


def wrong_site(rng, frame):
    some_cell(rng, frame, ["Metadata_Site"], str(rng.choice(["x", "", "-1", "1.5", "1e9", "nan", "inf"])))
    return frame


def wrong_plate(rng, frame):
    frame["Metadata_Plate"] = str(rng.choice(["other", "", "../b1_p1"]))
    return frame


def shuffled_columns(rng, frame):
    return frame[list(rng.permutation(frame.columns))]


def shuffled_rows(rng, frame):
    return frame.sample(frac=1, random_state=int(rng.integers(2**31)))


def no_table(rng, data):
    found = [
        b"", b"\0" * 500, b"\xff\xfe" + rng.bytes(300), b"PAR1" + rng.bytes(300), gzip.compress(data)[:-20],
        b"\x1f\x8b" + rng.bytes(100), data[: len(data) // 3], data.split(b"\n")[0], b'"' + data, rng.bytes(2000),
        b"{}",
    ]  # fmt: skip
    return found[int(rng.integers(len(found)))]


def with_semicolons(_, data):
    return data.replace(b",", b";")


def wrong_kind(rng, frame):
    some_cell(rng, frame, ["Metadata_pert_type"], str(rng.choice(["control", "", "TRT", "neg"])))
    return frame


def wrong_dose(rng, frame):
    some_cell(rng, frame, ["Metadata_Dose_uM"], str(rng.choice(["-1", "ten", "inf", "5 cells", "1e999", "0x10"])))
    return frame


def nameless_treatment(rng, frame):
    some_cell(
        rng, frame, ["Metadata_Treatment", "Metadata_Compound"], str(rng.choice(["", "a\nb", "x" * 300, "\x1b[31m"]))
    )
    return frame


def lost_row(rng, frame):
    return frame.drop(index=int(rng.integers(len(frame))))


def on_manifest(change):
    def damage(rng, delivery):
        change(rng, delivery.manifest)
        delivery.write()

    return damage


def some_entry(rng, manifest):
    files = manifest["plates"][0]["files"]
    return files[int(rng.integers(len(files)))]


def wrong_digest(rng, delivery):
    path, field = some_image(rng, delivery)
    (entry,) = (entry for entry in delivery.manifest["plates"][0]["files"] if entry["path"] == path)
    key = str(rng.choice(["sha256", "size_bytes"]))
    entry[key] = "0" * 64 if key == "sha256" else int(rng.choice([0, 1, entry["size_bytes"] + 1, 2**39]))
    delivery.write()
    return {field}


def wrong_path(rng, manifest):
    names = ["../secret", "/etc/passwd", "a/../../b", "", ".", "a\\b", "a\0b", "x" * 600, "a//b", "./a"]
    some_entry(rng, manifest)["path"] = str(rng.choice(names))


def wrong_value(rng, manifest):
    entry = some_entry(rng, manifest)
    changes = [
        lambda: entry.update(size_bytes=-1), lambda: entry.update(size_bytes="12"),
        lambda: entry.update(size_bytes=1.5),
        lambda: entry.update(sha256="zz"), lambda: entry.update(sha256=None), lambda: entry.update(extra=1),
        lambda: manifest.update(surprise=[]), lambda: manifest.update(schema_version=99),
        lambda: manifest.update(plate_wells=95), lambda: manifest.update(channels=["Actin"]),
        lambda: manifest.update(channels=[]), lambda: manifest.update(channels=["DNA", "DNA"]),
        lambda: manifest.update(source="a/b"), lambda: manifest.update(batch="../b"),
        lambda: manifest.update(plates=[]),
        lambda: manifest.update(created_at="yesterday"), lambda: manifest["instrument"].update(pixel_size_um=0),
        lambda: manifest["instrument"].update(bit_depth=64), lambda: manifest["plates"][0].update(plate="p/1"),
        lambda: manifest["plates"][0].update(sites_per_well=0),
        lambda: manifest["plates"][0].update(load_data="no.csv"),
        lambda: manifest["plates"][0].update(files=manifest["plates"][0]["files"] + [entry]),
        lambda: manifest["plates"].append(manifest["plates"][0]), lambda: manifest.pop("instrument"),
        lambda: manifest["plates"][0].update(illumination={"DNA": "nowhere.npy"}),
    ]  # fmt: skip
    changes[int(rng.integers(len(changes)))]()


def no_manifest(rng, delivery):
    text = json.dumps(delivery.manifest).encode()
    found = [
        b"", b"null", b"[]", b'"x"', text[: int(rng.integers(1, len(text)))], b"[" * 100_000, b'{"a":' * 50_000,
        text.replace(b'"size_bytes": ', b'"size_bytes": 1' + b"0" * 5000, 1), b"\xff" + text, text + text,
        text.replace(b'"pixel_size_um": 0.6', b'"pixel_size_um": NaN'), rng.bytes(500),
    ]  # fmt: skip
    (delivery.folder / "manifest.json").write_bytes(found[int(rng.integers(len(found)))])


def too_few_sites(rng, manifest):
    manifest["plates"][0]["sites_per_well"] = int(rng.choice([1, 5, 100]))


def stain_left_out(rng, manifest):
    manifest["channels"].remove(str(rng.choice(manifest["channels"])))


IMAGES = {
    "cut off on the way": on_image(truncated, listed=False),
    "bit flipped on the way": on_image(flipped, listed=False),
    "block of zeros on the way": on_image(block_of_zeros, listed=False),
    "another field's image on the way": on_image(of_another_field, listed=False),
    "cut off before the manifest": on_image(truncated, listed=True),
    "another kind of file": on_image(foreign, listed=True),
    "other shape or type of pixel": on_image(other_pixels, listed=True),
    "no picture recorded": on_image(blank, listed=True),
    "absurd header": on_image(absurd_header, listed=True),
    "strip that unpacks to megabytes": on_image(bomb, listed=True),
    "LZW strip of a giant": on_image(lzw_bomb, listed=True),
    "file missing": missing,
    "folder instead of a file": folder_instead,
    "link out of the delivery": link_out,
    "link to itself": link_in_a_circle,
    "digest or size in the manifest": wrong_digest,
}  # fmt: skip
"""Damage to one field: it is set aside, and the others are as if it had never been there."""

FIELD_TABLES = {
    "load_data: cell emptied": on_table("load_data", emptied_cell, fields=True),
    "load_data: file name that is none": on_table("load_data", wrong_file_name, fields=True),
    "load_data: one file for two fields": on_table("load_data", one_file_twice, fields=True),
}

PLATES = {
    "load_data: row twice": on_table("load_data", repeated_row),
    "load_data: stain renamed": on_table("load_data", renamed_stain),
    "load_data: column lost": on_table("load_data", lost_column),
    "load_data: no such well": on_table("load_data", wrong_well),
    "load_data: no such site": on_table("load_data", wrong_site),
    "load_data: another plate's": on_table("load_data", wrong_plate),
    "load_data: no table": on_bytes("load_data", no_table),
    "plate map: row lost": on_table("plate_map", lost_row),
    "plate map: column lost": on_table(
        "plate_map", lambda rng, frame: frame.drop(columns=str(rng.choice(frame.columns)))
    ),
    "plate map: no such well": on_table("plate_map", wrong_well),
    "plate map: another plate's": on_table("plate_map", wrong_plate),
    "plate map: unknown kind of well": on_table("plate_map", wrong_kind),
    "plate map: dose that is none": on_table("plate_map", wrong_dose),
    "plate map: treatment without a name": on_table("plate_map", nameless_treatment),
    "plate map: no table": on_bytes("plate_map", no_table),
    "manifest: path that leads out or is none": on_manifest(wrong_path),
    "manifest: value that breaks the schema": on_manifest(wrong_value),
    "manifest: no JSON": no_manifest,
    "manifest: other number of sites": on_manifest(too_few_sites),
    "manifest: stain left out": on_manifest(stain_left_out),
}
"""Damage to tables and manifest: the plate or the batch is refused in words."""

HARMLESS = {
    "load_data: semicolons": on_bytes("load_data", with_semicolons),
    "plate map: semicolons": on_bytes("plate_map", with_semicolons),
    "plate map: equal row twice": on_table("plate_map", repeated_row),
    "load_data: columns shuffled": on_table("load_data", shuffled_columns),
    "load_data: rows shuffled": on_table("load_data", shuffled_rows),
    "plate map: rows and columns shuffled": on_table(
        "plate_map", lambda rng, frame: shuffled_columns(rng, shuffled_rows(rng, frame))
    ),
    "load_data: gzipped": on_bytes("load_data", lambda _, data: gzip.compress(data)),
    "load_data: other line ends": on_bytes("load_data", lambda _, data: data.replace(b"\n", b"\r\n")),
    "load_data: byte order mark": on_bytes("load_data", lambda _, data: b"\xef\xbb\xbf" + data),
}
"""Changes that must make no difference."""
