"""Images of a batch that have exactly the content of another one."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from coda.contracts.manifest import BatchManifest
from coda.plates.batch_files import BatchFiles
from coda.plates.file_lists import FileListError, read_file_list


def copied_images(files: BatchFiles, manifest: BatchManifest) -> int:
    """Return how many images have the content of an earlier image of the batch, by their digests in the manifest.

    Half of each digest is kept, 32 bytes an image, whatever lists the images.

    Raises:
        TransientError: The storage is away.
    """
    digests = np.concatenate(list(_digests(files, manifest)))
    return len(digests) - len(np.unique(digests))


def _digests(files: BatchFiles, manifest: BatchManifest) -> Iterator[NDArray[np.bytes_]]:
    for plate in manifest.plates:
        if plate.file_list is None:
            values = [file.sha256 for file in plate.files if file.path not in plate.not_images]
        else:
            try:
                values = read_file_list(files, plate).table.column("sha256").to_pylist()
            except FileListError:
                values = []  # its plate is refused for it
        yield np.array(values, dtype="S32")
