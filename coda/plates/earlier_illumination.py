"""The illumination function of an earlier plate, in a file of its own, for later plates of the same instrument.

The file says what it belongs to. Which file is used for which instrument is a parameter, with the file's SHA-256
(``ingest.earlier_illumination``); nothing is ever searched for.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coda.contracts.ingest import IngestReport
from coda.contracts.manifest import BatchManifest, Instrument
from coda.errors import ConfigError, Problem
from coda.plates.illumination import KnownLight, enlarged

MAX_BYTES = 256 * 2**20
PIXEL_TOLERANCE = 0.01
WRITE = "Write the file with: coda plates illumination DATASET/SOURCE/BATCH --plate PLATE --out FILE"


@dataclass(frozen=True)
class EarlierLight:
    """The function of one plate.

    Attributes:
        planes: Channel -> function, reduced, float32, (rows, columns); see `PlateIllumination.function`.
        shape: Height and width of the raw images.
        instrument: What the plate was taken with.
        plate: Source, batch and plate, for people.
        sha256: Digest of the file.
    """

    planes: Mapping[str, NDArray[np.float32]]
    shape: tuple[int, int]
    instrument: Instrument
    plate: str
    sha256: str

    def light(self, channels: Sequence[str]) -> KnownLight:
        """Return what plates are divided by, for channels that it has."""
        function = np.stack([self.planes[channel] for channel in channels])
        return KnownLight(enlarged(function, self.shape), function, "earlier")

    def misfit(self, instrument: Instrument, channels: Sequence[str], shape: tuple[int, int]) -> Problem | None:
        """Return why the function is not for a plate, or None."""
        mine, theirs = self.instrument, instrument
        absent = [channel for channel in channels if channel not in self.planes]
        apart = abs(mine.pixel_size_um - theirs.pixel_size_um) > PIXEL_TOLERANCE * mine.pixel_size_um
        found = [
            *([f"channels without one ({', '.join(absent)})"] if absent else []),
            *([f"images of {shape[0]} x {shape[1]}"] if shape != self.shape else []),
            *([f"pixels of {theirs.pixel_size_um:g} um"] if apart else []),
            *([f"modality {theirs.modality}"] if theirs.modality != mine.modality else []),
        ]
        if not found:
            return None
        expected = (
            f"a plate like {self.plate}: {', '.join(self.planes)}, {self.shape[0]} x {self.shape[1]}, "
            f"{mine.pixel_size_um:g} um, {mine.modality}"
        )
        remedy = (
            "Have the function estimated: --set 'ingest.earlier_illumination={}', or name the file of such a plate."
        )
        return Problem(f"ingest.earlier_illumination, {instrument.name}", "; ".join(found), expected, remedy)


def write_earlier(folder: Path, plate: str, out: Path) -> str:
    """Write the function of a plate of an ingested batch to a file, and return the file's SHA-256.

    Raises:
        ConfigError: There is no such plate, or its function is not its own.
    """
    report = IngestReport.read(folder / "ingest.json")
    manifest = BatchManifest.read(folder / "manifest.json")
    origins = {outcome.plate: outcome.illumination for outcome in report.plates}
    if origins.get(plate) != "estimated":
        found = f"illumination {origins[plate]!r}" if plate in origins else "no such plate"
        known = ", ".join(name for name, origin in origins.items() if origin == "estimated") or "none here"
        problem = Problem(f"{folder}, plate {plate}", found, f"a plate whose function was estimated: {known}", WRITE)
        raise ConfigError("There is no function to use for other plates.", [problem])
    about = {"instrument": manifest.instrument.model_dump(mode="json"), "plate": f"{manifest.batch_id}/{plate}"}
    with np.load(folder / "illumination.npz", allow_pickle=False) as kept:
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            function=kept[f"{plate}/function"],
            shape=kept[f"{plate}/shape"],
            channels=np.array(report.channels, dtype=np.str_),
            about=np.array(json.dumps(about, sort_keys=True)),
        )
    out.write_bytes(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def read_earlier(data: bytes, sha256: str, where: str) -> EarlierLight:
    """Return the function in a file, after holding its bytes against a digest.

    Raises:
        ConfigError: It is another file, or none of these.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        remedy = "Name the file that was meant, or set the digest of this one if you know where it comes from."
        problem = Problem(where, f"SHA-256 {found}", f"{sha256} (ingest.earlier_illumination)", remedy)
        raise ConfigError("The illumination function of an earlier plate is another file.", [problem])
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            about: dict[str, Any] = json.loads(str(kept["about"]))
            _, _, _ = kept["function"].shape
            planes = dict(zip(kept["channels"].tolist(), kept["function"].astype(np.float32), strict=True))
            height, width = (int(side) for side in kept["shape"])
        instrument = Instrument.model_validate(about["instrument"], strict=False)
        light = EarlierLight(planes, (height, width), instrument, str(about["plate"]), sha256)
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        what = " ".join(str(error).split())[:120]
        problem = Problem(where, f"no such file ({what})", "an illumination function with its plate", WRITE)
        raise ConfigError("The illumination function of an earlier plate cannot be read.", [problem]) from error
    return light
