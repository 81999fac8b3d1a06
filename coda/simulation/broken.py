"""Breaks a delivered batch in documented ways, as real deliveries break, to test what refuses or sets things aside."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from coda.contracts import MANIFEST_NAME
from coda.contracts.manifest import FileEntry, PlateEntry
from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.batch_files import LocalFiles
from coda.plates.file_lists import files_of_plate, written_list
from coda.simulation.delivery_files import describe_file
from coda.simulation.delivery_tables import as_csv
from coda.simulation.seeds import stream

SHARE = 0.01
"""Share of a plate's images that the kinds `corrupt_tiff`, `truncated_upload` and `zero_images` spoil; at least 3."""

UNKNOWN_STAIN = "Actin"
"""Name that `unknown_stain` gives to AGP."""


@dataclass
class _Delivery:
    """A batch folder and its manifest as plain JSON, which may become invalid on purpose."""

    folder: Path
    manifest: dict[str, Any]
    seed: int

    @property
    def plates(self) -> list[dict[str, Any]]:
        """The manifest's plates."""
        plates: list[dict[str, Any]] = self.manifest["plates"]
        return plates

    def open_lists(self) -> None:
        """Take the files that file lists name into the manifest, so that all that follows is the same without lists."""
        for plate in self.plates:
            if "file_list" in plate:
                entry = PlateEntry.model_validate_json(json.dumps(plate))
                plate["files"] = [file.model_dump() for file in files_of_plate(LocalFiles(self.folder), entry)]

    def close_lists(self) -> None:
        """Write the file lists again, each over the one that was there."""
        for plate in self.plates:
            if "file_list" not in plate:
                continue
            own = {plate["plate_map"], plate["load_data"], *plate.get("illumination", {}).values()}
            images = [FileEntry(**file) for file in plate["files"] if file["path"] not in own]
            ref, data = written_list(plate["file_list"]["path"], images)
            (self.folder / ref.path).write_bytes(data)
            plate["files"] = [file for file in plate["files"] if file["path"] in own]
            plate["file_list"] = ref.model_dump()

    def pick_images(self, kind: str) -> list[str]:
        """Return a few images of the first plate, chosen by the seed."""
        plate = self.plates[0]
        images = sorted(file["path"] for file in plate["files"] if file["path"].startswith("images/"))
        count = min(len(images), max(3, round(SHARE * len(images))))
        chosen = stream(self.seed, "break", kind).choice(len(images), count, replace=False)
        return [images[index] for index in sorted(chosen)]

    def record(self, paths: Sequence[str]) -> None:
        """Record files as they are now, as a producer does who does not know that they are bad."""
        fresh = {path: describe_file(self.folder, path).model_dump() for path in paths}
        for plate in self.plates:
            plate["files"] = [fresh.get(file["path"], file) for file in plate["files"]]

    def edit_table(self, path: str, edit: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
        """Rewrite a CSV table through a function of its rows, and record it."""
        rows = edit(list(csv.DictReader(io.StringIO((self.folder / path).read_text(encoding="utf-8")))))
        header = list(rows[0])
        (self.folder / path).write_text(as_csv(header, [list(row.values()) for row in rows]), encoding="utf-8")
        self.record([path])


def break_batch(folder: Path, kinds: Sequence[str], seed: int) -> list[str]:
    """Break a delivered batch in place.

    The manifest's digests are updated where a producer would have recorded the bad file without noticing, and its
    simulation parameters name the kinds under ``broken``. The manifest is written last.

    Args:
        folder: Batch folder with its manifest.
        kinds: Names from `KINDS`, applied in this order.
        seed: Chooses the files, 0 or more.

    Returns:
        One sentence a kind about what was done.

    Raises:
        ConfigError: A kind is unknown, or the folder holds no manifest.
    """
    problems = [
        Problem("kinds", repr(kind), f"one of {', '.join(KINDS)}", "Choose a documented kind.")
        for kind in kinds
        if kind not in KINDS
    ]
    path = folder / MANIFEST_NAME
    if not path.exists():
        problems.append(Problem(str(folder), "no manifest.json", "a delivered batch", "Simulate the batch first."))
    raise_if_any(ConfigError, "The batch cannot be broken.", problems)
    delivery = _Delivery(folder, json.loads(path.read_text(encoding="utf-8")), seed)
    delivery.open_lists()
    done = [KINDS[kind](delivery) for kind in kinds]
    simulation = delivery.manifest["simulation"] or {}
    delivery.manifest["simulation"] = simulation | {"broken": [*simulation.get("broken", []), *kinds]}
    delivery.close_lists()
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(delivery.manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return done


def _corrupt_tiff(delivery: _Delivery) -> str:
    """A few images are cut off or hold noise instead of a TIFF; the manifest records them as they are."""
    paths = delivery.pick_images("corrupt_tiff")
    for number, path in enumerate(paths):
        file = delivery.folder / path
        content = file.read_bytes()
        garbage = stream(delivery.seed, "garbage", path).bytes(len(content))
        file.write_bytes(content[: len(content) // 3] if number % 2 == 0 else garbage)
    delivery.record(paths)
    return f"corrupt_tiff: {len(paths)} images of plate {delivery.plates[0]['plate']} cannot be read as TIFF."


def _truncated_upload(delivery: _Delivery) -> str:
    """A few images lost their end on the way; the manifest still has the sizes and digests of the whole files."""
    paths = delivery.pick_images("truncated_upload")
    for path in paths:
        file = delivery.folder / path
        file.write_bytes(file.read_bytes()[:-1000])
    return f"truncated_upload: {len(paths)} images of plate {delivery.plates[0]['plate']} are shorter than recorded."


def _missing_plate(delivery: _Delivery) -> str:
    """All files of the last plate are missing although the manifest lists them."""
    plate = delivery.plates[-1]
    for file in plate["files"]:
        (delivery.folder / file["path"]).unlink(missing_ok=True)
    return f"missing_plate: none of the {len(plate['files'])} files of plate {plate['plate']} was delivered."


def _swapped_stains(delivery: _Delivery) -> str:
    """load_data of the first plate says DNA for AGP and AGP for DNA."""
    return f"swapped_stains: {_swap(delivery, delivery.plates[0], 'DNA', 'AGP')}"


def _swapped_cytoplasm(delivery: _Delivery) -> str:
    """load_data of every plate says RNA for AGP and AGP for RNA."""
    return f"swapped_cytoplasm: {' '.join(_swap(delivery, plate, 'RNA', 'AGP') for plate in delivery.plates)}"


def _swap(delivery: _Delivery, plate: dict[str, Any], one: str, other: str) -> str:
    first, second = f"FileName_Orig{one}", f"FileName_Orig{other}"

    def swap(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        for row in rows:
            row[first], row[second] = row[second], row[first]
        return rows

    delivery.edit_table(plate["load_data"], swap)
    return f"load_data of plate {plate['plate']} swaps {one} and {other}."


def _no_controls(delivery: _Delivery) -> str:
    """No plate has controls: their wells are empty in the plate maps, and their images were never taken."""
    for plate in delivery.plates:
        dropped: set[str] = set()

        def empty(rows: list[dict[str, str]], wells: set[str] = dropped) -> list[dict[str, str]]:
            blank = {"Metadata_Compound": "", "Metadata_Treatment": "", "Metadata_Dose_uM": ""}
            for row in rows:
                if row["Metadata_pert_type"] in ("negcon", "poscon"):
                    wells.add(row["Metadata_Well"])
                    row.update(blank, Metadata_pert_type="empty")
            return rows

        delivery.edit_table(plate["plate_map"], empty)
        _drop_wells(delivery, plate, dropped)
    return f"no_controls: {len(delivery.plates)} plates have no control wells."


def _drop_wells(delivery: _Delivery, plate: dict[str, Any], wells: set[str]) -> None:
    """Remove the images of wells from folder, load_data and manifest."""
    gone: set[str] = set()

    def keep(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        for row in rows:
            if row["Metadata_Well"] in wells:
                stains = [name.removeprefix("FileName_") for name in row if name.startswith("FileName_")]
                gone.update(row[f"PathName_{stain}"] + row[f"FileName_{stain}"] for stain in stains)
        return [row for row in rows if row["Metadata_Well"] not in wells]

    delivery.edit_table(plate["load_data"], keep)
    for path in gone:
        (delivery.folder / path).unlink(missing_ok=True)
    plate["files"] = [file for file in plate["files"] if file["path"] not in gone]


def _unknown_stain(delivery: _Delivery) -> str:
    """The producer calls AGP by another name, in load_data and in the manifest."""
    manifest = delivery.manifest
    manifest["channels"] = [UNKNOWN_STAIN if stain == "AGP" else stain for stain in manifest["channels"]]

    def rename(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{name.replace("OrigAGP", f"Orig{UNKNOWN_STAIN}"): value for name, value in row.items()} for row in rows]

    for plate in delivery.plates:
        delivery.edit_table(plate["load_data"], rename)
    return f"unknown_stain: AGP is called {UNKNOWN_STAIN} in load_data and manifest."


def _wrong_platemap(delivery: _Delivery) -> str:
    """The first plate's map is another plate's: its wells are rows further down, so imaged wells are not in it."""
    plate = delivery.plates[0]

    def shift(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        for row in rows:
            well = row["Metadata_Well"]
            row["Metadata_Well"] = f"{chr(min(ord(well[0]) + 16, ord('Z')))}{well[1:]}"
            row["Metadata_Plate"] = f"{row['Metadata_Plate']}_other"
        return rows

    delivery.edit_table(plate["plate_map"], shift)
    return f"wrong_platemap: the plate map of plate {plate['plate']} belongs to another plate."


def _shuffled_platemap(delivery: _Delivery) -> str:
    """The first plate's map has the right treatments in the wrong wells: in random order."""
    plate = delivery.plates[0]

    def shuffle(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        filled = [row for row in rows if row["Metadata_pert_type"] != "empty"]
        order = stream(delivery.seed, "break", "shuffled_platemap").permutation(len(filled))
        wells = [row["Metadata_Well"] for row in filled]
        moved = [{**filled[place], "Metadata_Well": well} for place, well in zip(order, wells, strict=True)]
        return sorted([*moved, *(row for row in rows if row not in filled)], key=lambda row: row["Metadata_Well"])

    delivery.edit_table(plate["plate_map"], shuffle)
    return f"shuffled_platemap: the plate map of plate {plate['plate']} has its treatments in the wrong wells."


def _zero_images(delivery: _Delivery) -> str:
    """A few images are valid TIFFs in which every pixel is 0, as a failed camera read-out leaves them."""
    paths = delivery.pick_images("zero_images")
    for path in paths:
        shape = tifffile.imread(delivery.folder / path).shape
        tifffile.imwrite(
            delivery.folder / path, np.zeros(shape, np.uint16), photometric="minisblack", software=False, metadata=None
        )
    delivery.record(paths)
    return f"zero_images: {len(paths)} images of plate {delivery.plates[0]['plate']} are zero everywhere."


KINDS: dict[str, Callable[[_Delivery], str]] = {
    "corrupt_tiff": _corrupt_tiff,
    "truncated_upload": _truncated_upload,
    "missing_plate": _missing_plate,
    "swapped_stains": _swapped_stains,
    "swapped_cytoplasm": _swapped_cytoplasm,
    "no_controls": _no_controls,
    "unknown_stain": _unknown_stain,
    "wrong_platemap": _wrong_platemap,
    "shuffled_platemap": _shuffled_platemap,
    "zero_images": _zero_images,
}
"""Name of a kind -> what does it; the sentence of each is in docs/simulation.md."""
