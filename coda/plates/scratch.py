"""Fields on local disk until a plate's sums are known, so that each raw image is fetched, verified and decoded once.

LZW, which most instruments write, is decoded at some 200 MB/s; what is kept here comes back ten times as fast, and an
object store is asked once. It is a convenience: whatever is not here is read from the delivery again.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scratch:
    """A folder for the fields of one plate; worker processes share it, each field has one writer and one reader.

    A field is kept decoded, or encoded for the store where its plate's light was known before.

    Attributes:
        folder: The folder; it exists.
        shape: Channels, height and width of a field.
        least_free: Bytes of the disk that stay free whatever comes.
    """

    folder: Path
    shape: tuple[int, int, int]
    least_free: int = 0

    def keep(self, name: str, images: Sequence[NDArray[np.uint16]]) -> None:
        """Keep a decoded field, as `put` does."""
        pixels: Any = np.stack(images)  # the codec takes any buffer, its stubs do not say so
        chunk = imagecodecs.blosc_encode(
            pixels, level=1, compressor="lz4", shuffle="bitshuffle", typesize=2, numthreads=1
        )
        self.put(name, bytes(chunk))

    def put(self, name: str, chunk: bytes) -> bool:
        """Keep the bytes of a field and return whether they are kept.

        A disk that is full keeps nothing: the field is then read again, and writing the results tells what to do.
        """
        if self.least_free and shutil.disk_usage(self.folder).free < self.least_free:
            return False
        place = self._place(name)
        draft = place.with_suffix(".part")
        try:
            draft.write_bytes(chunk)
            draft.replace(place)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            return False
        return True

    def has(self, name: str) -> bool:
        """Return whether a field was kept."""
        return self._place(name).exists()

    def take(self, name: str) -> list[NDArray[np.uint16]] | None:
        """Return a decoded field and forget it; None when it was not kept."""
        chunk = self.pick(name)
        if chunk is None:
            return None
        pixels: Any = np.empty(self.shape, dtype=np.uint16)
        imagecodecs.blosc_decode(chunk, numthreads=1, out=pixels.reshape(-1).view(np.uint8))
        return list(pixels)

    def pick(self, name: str) -> bytes | None:
        """Return the bytes of a field and forget them; None when they were not kept."""
        place = self._place(name)
        try:
            chunk = place.read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            place.unlink()
        return chunk

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}.raw"
