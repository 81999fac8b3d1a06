"""Where images live while they are cut: on the device, in host memory, or in the plate stores.

Whichever it is, the same rows and corners give the same pixels, so that the place never changes what is learned.
"""

import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.plates.stored import Fields, StoredFields, read_fields

HELD_BYTES = 1 << 30
"""Decoded fields that are kept of a plate store: a field is often drawn again soon, as anchor or as partner."""

DEVICE_SHARE, HOST_SHARE = 0.6, 0.5
"""Largest share of free device memory, and of this process's memory, that images may take."""

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


class ImageSource(Protocol):
    """Images that crops are cut from.

    Attributes:
        reads_ahead: Whether it gains by knowing what comes next.
        shape: Fields, channels, height and width.
        device: Device that crops come out on.
    """

    reads_ahead: bool
    shape: tuple[int, int, int, int]
    device: torch.device

    def cut(self, rows: Tensor, tops: Tensor, lefts: Tensor, size: int) -> Tensor:
        """Cut one square from each row; see `cut_crops`."""

    def whole(self, rows: Tensor) -> Tensor:
        """Return whole images, uint8, shape (rows, channels, height, width)."""

    def expect(self, rows: Sequence[NDArray[np.intp]]) -> None:
        """Note the rows of the next batches, so that they can be read ahead."""


class MemoryImages:
    """Images in one tensor, on the device or in host memory."""

    reads_ahead = False

    def __init__(self, images: Tensor, device: torch.device | None = None, places: Tensor | None = None) -> None:
        """Keep the images where they lie.

        Args:
            images: uint8, shape (images, channels, height, width).
            device: Where crops go; the images' own device when not given.
            places: Image of each field, shape (fields,), on the CPU; the fields are the images when not given.
        """
        self._images, self._places = images, places
        self.device = device or images.device
        count, channels, height, width = images.shape
        self.shape = (count if places is None else len(places), channels, height, width)

    def cut(self, rows: Tensor, tops: Tensor, lefts: Tensor, size: int) -> Tensor:
        """Cut one square from each row; see `cut_crops`."""
        return _sent(cut_crops(self._images, self._placed(rows), tops, lefts, size), self.device)

    def whole(self, rows: Tensor) -> Tensor:
        """Return whole images, uint8, shape (rows, channels, height, width)."""
        return _sent(self._images[self._placed(rows).to(self._images.device)], self.device)

    def expect(self, rows: Sequence[NDArray[np.intp]]) -> None:
        """Need nothing: all is here."""

    def _placed(self, rows: Tensor) -> Tensor:
        return rows if self._places is None else self._places[rows]


class StoredImages:
    """Images in plate stores, read and decoded ahead of their use, for data that no memory holds."""

    reads_ahead = True

    def __init__(self, fields: StoredFields, device: torch.device, held_bytes: int = HELD_BYTES) -> None:
        """Keep the fields' places.

        Args:
            fields: Where each field is stored.
            device: Where crops go.
            held_bytes: Decoded fields to keep, at least those of one batch.
        """
        self._fields, self.device, self.shape = fields, device, fields.shape
        self._most = max(1, held_bytes // max(1, int(np.prod(fields.shape[1:]))))
        self._held: OrderedDict[int, Future[NDArray[np.uint8]]] = OrderedDict()
        self._readers = ThreadPoolExecutor(fields.readers, thread_name_prefix="plate-reader")
        # a source is made for every look at the fields; its threads must not outlive it
        weakref.finalize(self, self._readers.shutdown, wait=False)

    def cut(self, rows: Tensor, tops: Tensor, lefts: Tensor, size: int) -> Tensor:
        """Cut one square from each row; see `cut_crops`."""
        held = self._hold(rows.tolist())
        corners = zip(rows.tolist(), tops.tolist(), lefts.tolist(), strict=True)
        cut = [held[row][:, top : top + size, left : left + size] for row, top, left in corners]
        return _sent(torch.from_numpy(np.stack(cut)), self.device)

    def whole(self, rows: Tensor) -> Tensor:
        """Return whole images, uint8, shape (rows, channels, height, width)."""
        held = self._hold(rows.tolist())
        return _sent(torch.from_numpy(np.stack([held[row] for row in rows.tolist()])), self.device)

    def expect(self, rows: Sequence[NDArray[np.intp]]) -> None:
        """Begin to read the fields of the next batches."""
        for part in rows:
            for row in part.tolist():
                self._request(row)

    def _request(self, row: int) -> Future[NDArray[np.uint8]]:
        future = self._held.get(row)
        if future is None:
            future = self._readers.submit(self._fields.read_one, row)
            self._held[row] = future
        self._held.move_to_end(row)
        return future

    def _hold(self, rows: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
        distinct = dict.fromkeys(rows)
        futures = {row: self._request(row) for row in distinct}
        held = {row: future.result() for row, future in futures.items()}
        while len(self._held) > max(self._most, len(distinct)):
            self._held.popitem(last=False)
        return held


def image_source(fields: Fields, device: torch.device, where: str = "auto") -> ImageSource:
    """Return where the images of fields are cut from.

    Args:
        fields: Fields in memory, or their places in plate stores.
        device: Where crops are needed.
        where: ``compute.images``. Images in memory are brought to the device once ('device', or 'auto' where they take
            at most `DEVICE_SHARE` of its free memory), whoever asks for how many parts of them; else crops are cut in
            host memory and sent.
    """
    if isinstance(fields, StoredFields):
        return StoredImages(fields, device)
    images = torch.from_numpy(fields.pool)
    places = torch.from_numpy(np.ascontiguousarray(fields.rows)) if fields.rows is not None else None
    if device.type == "cpu":
        return MemoryImages(images, places=places)
    key = (id(fields.pool), str(device))
    if key not in _UPLOADED and (where == "device" or (where == "auto" and _fits(images, device))):
        _UPLOADED[key] = images.to(device)
        # forgotten with the images in host memory, before another array can have their identity
        weakref.finalize(fields.pool, _UPLOADED.pop, key, None)
    return MemoryImages(_UPLOADED.get(key, images), device, places)


_UPLOADED: dict[tuple[int, str], Tensor] = {}
"""Images on a device, by the array in host memory that they are a copy of."""


def place_fields(stored: StoredFields, where: str) -> Fields:
    """Read fields into memory, or leave them in their plate stores.

    Args:
        stored: The fields that are needed, and no others: what is not needed is taken away first (`StoredFields.take`).
        where: ``compute.images``; 'auto' leaves them where they would take more than `HOST_SHARE` of the memory that
            this process may use. What is read of stores that lie elsewhere is then kept on this disk.

    Raises:
        IntegrityError: A store that is read is absent or damaged.
    """
    if where == "stored" or (where == "auto" and int(np.prod(stored.shape)) > HOST_SHARE * memory_limit()):
        return stored.kept_in(Path(tempfile.gettempdir()))
    return read_fields(stored)


def memory_limit() -> int:
    """Return the bytes of memory this process may use: its part of the machine's, or of its container's if less."""
    # torchrun says how many processes share this machine; each holds images of its own
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(CONTAINER_LIMIT.read_text(encoding="ascii"))) // beside
    except (OSError, ValueError):
        return machine // beside  # no container, or one without a limit ("max")


def _fits(images: Tensor, device: torch.device) -> bool:
    free, _total = torch.cuda.mem_get_info(device)
    return images.numel() <= DEVICE_SHARE * free


def cut_crops(images: Tensor, rows: Tensor, tops: Tensor, lefts: Tensor, size: int) -> Tensor:
    """Cut one square from each row.

    Args:
        images: Shape (fields, channels, height, width).
        rows: Shape (crops,), on the CPU, as are the corners.
        tops: First row of pixels of each crop.
        lefts: First column of pixels of each crop.
        size: Side in pixels.

    Returns:
        Shape (crops, channels, size, size), of the images' type.
    """
    if images.device.type == "cpu":
        # views and one copy are several times faster here than gathering by index (measured)
        corners = zip(rows.tolist(), tops.tolist(), lefts.tolist(), strict=True)
        return torch.stack([images[row, :, top : top + size, left : left + size] for row, top, left in corners])
    device, span = images.device, torch.arange(size, device=images.device)
    ys = (tops.to(device)[:, None] + span)[:, None, :, None]
    xs = (lefts.to(device)[:, None] + span)[:, None, None, :]
    channels = torch.arange(images.shape[1], device=device)[None, :, None, None]
    return images[rows.to(device)[:, None, None, None], channels, ys, xs]


def _sent(crops: Tensor, device: torch.device) -> Tensor:
    if crops.device == device:
        return crops
    # pinned memory lets the copy run beside the computation
    return crops.pin_memory().to(device, non_blocking=True)
