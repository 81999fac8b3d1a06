"""One image belongs to one field: files that tables give for several, or that only happen to have a lost one's name.

A table names files where they once were, so they are found by the end of their path. Where an image was lost, another
plate may have one of the same name; taken for the lost one, it would be wrong data that nothing later could notice.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import unquote

from coda.plates.adopt.found import FoundField, FoundPlate, ImageRef
from coda.plates.load_data import FieldRow
from coda.plates.tables import FileResolver


class NearestFiles(FileResolver):
    """A resolver that remembers how much of each name it found again."""

    def __init__(self, files: FileResolver) -> None:
        """Resolve as `files` does."""
        self._files = files
        self._shared: dict[str, dict[str, int]] = defaultdict(dict)

    def resolve(self, reference: str) -> str:
        """Return the path for a reference; see `FileResolver.resolve`."""
        path = self._files.resolve(reference)
        text = unquote(reference) if "://" in reference else reference
        names = [name for name in text.replace("\\", "/").split("/") if name not in {"", "."}]
        pairs = zip(reversed(names), reversed(PurePosixPath(path).parts), strict=False)
        shared = next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(names), path.count("/") + 1))
        self._shared["/".join(names[:-1])][path] = shared
        return path

    def strays(self) -> frozenset[str]:
        """Return the files that share less of their name than others that the table names in the same folder."""
        return frozenset(
            path for found in self._shared.values() for path, shared in found.items() if shared < max(found.values())
        )


def without_strays(fields: Sequence[FieldRow], files: NearestFiles) -> list[FieldRow]:
    """Return fields without the images that are another folder's; those count as missing."""
    strays = files.strays()
    if not strays:
        return list(fields)
    reason = "the only file of this name is in another folder than the others of this table"
    return [
        replace(
            row,
            files={stain: path for stain, path in row.files.items() if path not in strays},
            missing=row.missing | {stain: reason for stain, path in row.files.items() if path in strays},
        )
        for row in fields
    ]


def each_image_once(plates: Sequence[FoundPlate]) -> list[FoundPlate]:
    """Return plates without the images that are given for several fields or stains: nobody knows whose they are."""
    claims = Counter(image for plate in plates for item in plate.fields for image in item.files.values())
    twice = {image for image, count in claims.items() if count > 1}
    return [_without(plate, twice) for plate in plates] if twice else list(plates)


def _without(plate: FoundPlate, images: set[ImageRef]) -> FoundPlate:
    taken = sorted({image.path for item in plate.fields for image in item.files.values() if image in images})
    if not taken:
        return plate
    fields = tuple(
        FoundField(item.place, item.site, {stain: image for stain, image in item.files.items() if image not in images})
        for item in plate.fields
    )
    note = f"{len(taken)} image(s) are given for several fields or stains, and used for none (the first: {taken[0]})"
    return replace(plate, fields=fields, notes=(*plate.notes, note))
