"""Reading one field as the manifest promises it; anything else sets the field aside with its reason."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda.contracts.manifest import FileEntry
from coda.contracts.quality import QuarantinedField
from coda.plates.batch_files import BatchFiles, LargerFileError, OutsideBatchError
from coda.plates.image_decoding import UnreadableImageError, decode_image
from coda.plates.name_forms import AlikeNamesError

FETCHERS = 8
"""Files of a process under way at once."""

AHEAD = 2
"""Fields whose files are fetched before they are needed: one being decoded, one to come."""

PREPARED_MAX = 255


class SetAsideError(Exception):
    """A file or field cannot be used.

    Attributes:
        reason: Why, as a sentence without its subject.
        delivery: Whether the delivery is at fault (file absent or different from the manifest), so that the same
            manifest may give another result after a new upload.
    """

    def __init__(self, reason: str, *, delivery: bool = False, channel: str = "", path: str = "") -> None:
        """Keep the reason and the place."""
        super().__init__(reason)
        self.reason, self.delivery, self.channel, self.path = reason, delivery, channel, path


@dataclass(frozen=True)
class FieldJob:
    """One field to read: its place, and a file for each stored channel, in their order."""

    place: tuple[int, int]
    well: str
    site: int
    files: tuple[FileEntry, ...]

    @property
    def name(self) -> str:
        """Name of the field on its plate, safe in paths."""
        return f"{self.well}-{self.site}"


@dataclass(frozen=True)
class PlateJob:
    """What all fields of a plate share; sent to the worker processes. `prepared`: its images are 8-bit already."""

    files: BatchFiles
    plate: str
    channels: tuple[str, ...]
    shape: tuple[int, int]
    max_side: int
    prepared: bool = False


def read_verified(files: BatchFiles, entry: FileEntry, *, max_bytes: int) -> bytes:
    """Return the bytes of a file after holding them against the manifest.

    Raises:
        SetAsideError: The file is absent, larger than allowed, or its size or digest is not the manifest's.
        TransientError: The storage is away.
    """
    if entry.size_bytes > max_bytes:
        raise SetAsideError(f"has {entry.size_bytes} bytes; at most {max_bytes} are accepted")
    try:
        data = files.read(entry.path, at_most=entry.size_bytes)
    except LargerFileError as error:
        raise _other_size(error.size_bytes, entry) from error
    except AlikeNamesError as error:
        raise SetAsideError(error.reason, delivery=True) from error
    except FileNotFoundError as error:
        raise SetAsideError("is in the manifest but was not delivered", delivery=True) from error
    except OutsideBatchError as error:
        raise SetAsideError("leads out of the folder of the batch") from error
    except PermissionError as error:
        raise SetAsideError("may not be read by this program", delivery=True) from error
    if len(data) != entry.size_bytes:
        raise _other_size(len(data), entry)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        reason = "was changed since the manifest was written (its SHA-256 is another)"
        raise SetAsideError(reason, delivery=True)
    return data


def _other_size(size: int, entry: FileEntry) -> SetAsideError:
    reason = f"has {size} bytes where the manifest says {entry.size_bytes} (broken or repeated upload)"
    return SetAsideError(reason, delivery=True)


def read_fields(plate: PlateJob, jobs: Sequence[FieldJob]) -> Iterator[list[NDArray[np.uint16]] | SetAsideError]:
    """Yield the raw images of fields in their order, (height, width) for each channel, or why a field is set aside.

    The files of the next field are fetched while one is decoded: an object store answers in milliseconds, and asking
    it for one file after the other would leave the core idle.

    Raises:
        TransientError: The storage is away.
    """
    with ThreadPoolExecutor(FETCHERS) as pool:
        waiting = deque(_fetch(pool, plate, job) for job in jobs[:AHEAD])
        try:
            for number in range(len(jobs)):
                if number + AHEAD < len(jobs):
                    waiting.append(_fetch(pool, plate, jobs[number + AHEAD]))
                try:
                    yield _images(plate, jobs[number], waiting.popleft())
                except SetAsideError as fault:
                    yield fault
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()


def _fetch(pool: ThreadPoolExecutor, plate: PlateJob, job: FieldJob) -> list[Future[bytes]]:
    most = largest_file(plate.max_side)
    return [pool.submit(read_verified, plate.files, entry, max_bytes=most) for entry in job.files]


def _images(plate: PlateJob, job: FieldJob, fetched: Sequence[Future[bytes]]) -> list[NDArray[np.uint16]]:
    """Return the images of a field.

    Raises:
        SetAsideError: A file is not as promised, is no image, is blank, or has another shape than its plate's fields.
        TransientError: The storage is away.
    """
    images = []
    for channel, entry, future in zip(plate.channels, job.files, fetched, strict=True):
        try:
            images.append(_image(plate, future.result()))
        except SetAsideError as error:
            raise SetAsideError(error.reason, delivery=error.delivery, channel=channel, path=entry.path) from error
    return images


def _image(plate: PlateJob, data: bytes) -> NDArray[np.uint16]:
    try:
        image = decode_image(data, max_side=plate.max_side)
    except UnreadableImageError as error:
        raise SetAsideError(str(error)) from error
    if image.shape != plate.shape:
        found, expected = (" x ".join(map(str, shape)) for shape in (image.shape, plate.shape))
        raise SetAsideError(f"is {found} pixels; the plate's fields are {expected}")
    low, high = int(image.min()), int(image.max())
    if low == high:
        words = "is all zero" if high == 0 else f"has the value {high} in every pixel"
        raise SetAsideError(f"{words}: no picture was recorded")
    if plate.prepared and high > PREPARED_MAX:
        raise SetAsideError(f"has grey values up to {high}; images that were prepared already have 8 bits")
    return image


def largest_file(max_side: int) -> int:
    """Return how many bytes an image file may have: twice the largest accepted image, for headers and bad codecs."""
    return 4 * max_side * max_side + 2**20


def quarantined(plate: str, job: FieldJob, fault: SetAsideError) -> QuarantinedField:
    """Return the record of a field set aside."""
    return QuarantinedField(
        plate=plate, well=job.well, site=job.site, channel=fault.channel, path=fault.path, reason=fault.reason
    )


def plate_shape(files: BatchFiles, jobs: Sequence[FieldJob], *, max_side: int) -> tuple[int, int] | None:
    """Return the most frequent image shape among some fields spread over the plate; None when none can be read.

    The first channel of at most 15 fields is looked at; between equally frequent shapes the first one decides.
    """
    wanted = min(15, len(jobs))
    spread = [round(step) for step in np.linspace(0, len(jobs) - 1, wanted)] if jobs else []
    shapes: dict[tuple[int, int], int] = {}
    for step in [*spread, *(step for step in range(len(jobs)) if step not in set(spread))]:
        if sum(shapes.values()) >= wanted:
            break
        try:
            data = read_verified(files, jobs[step].files[0], max_bytes=largest_file(max_side))
            shape = decode_image(data, max_side=max_side).shape
        except (SetAsideError, UnreadableImageError):
            continue
        key = (int(shape[0]), int(shape[1]))
        shapes[key] = shapes.get(key, 0) + 1
    return max(shapes, key=lambda shape: shapes[shape]) if shapes else None
