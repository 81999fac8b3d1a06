"""Ways to spoil one plate of a delivered batch, with or without the manifest knowing of it."""

import csv
import io
import json
from pathlib import Path

from coda.simulation.delivery_files import describe_file


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def images_of(folder: Path, plate: int = 0) -> list[str]:
    """Paths of a plate's images, one stain after the other within a field."""
    return sorted(file["path"] for file in manifest_of(folder)["plates"][plate]["files"] if "images/" in file["path"])


def record(folder: Path, *paths: str) -> None:
    """Write files into the manifest as they are now, as a producer who does not know that they are bad."""
    manifest = manifest_of(folder)
    for plate in manifest["plates"]:
        for place, file in enumerate(plate["files"]):
            if file["path"] in paths:
                plate["files"][place] = describe_file(folder, file["path"]).model_dump()
    write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: dict) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def scribble(folder: Path, *paths: str) -> None:
    """Fill images with bytes that are no image; the manifest records them so."""
    for path in paths:
        (folder / path).write_bytes(b"\xbe\xc3\xb1czw\x9b\xec" * 100)
    record(folder, *paths)


def flip_a_byte(folder: Path, *paths: str) -> None:
    """Change one byte: same size, another digest; the manifest knows nothing of it."""
    for path in paths:
        body = bytearray((folder / path).read_bytes())
        body[-5] ^= 0xFF
        (folder / path).write_bytes(body)


def cut(folder: Path, path: str) -> bytes:
    """Cut off the end of a file, as a broken upload does, and return the whole of it."""
    whole = (folder / path).read_bytes()
    (folder / path).write_bytes(whole[:-1000])
    return whole


def edit_table(folder: Path, kind: str, edit, plate: int = 0) -> None:
    """Rewrite a plate's 'plate_map' or 'load_data' through a function that changes its rows, and record it."""
    path = manifest_of(folder)["plates"][plate][kind]
    rows = list(csv.DictReader(io.StringIO((folder / path).read_text(encoding="utf-8"))))
    rows = edit(rows) or rows
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / path).write_text(out.getvalue(), encoding="utf-8")
    record(folder, path)


def rename(**names: str):
    """Return an edit that renames columns."""
    return lambda rows: [{names.get(column, column): value for column, value in row.items()} for row in rows]


def give(column: str, value):
    """Return an edit that sets a column, from a value or from a function of the row."""

    def edit(rows):
        for row in rows:
            row[column] = value(row) if callable(value) else value

    return edit


def without_controls(rows: list[dict[str, str]]) -> None:
    """Make a compound of each negative control."""
    for row in rows:
        if row["Metadata_pert_type"] == "negcon":
            row |= {"Metadata_pert_type": "trt", "Metadata_Compound": "c-x", "Metadata_Treatment": "c-x"}
