"""One image belongs to one field and one stain: the registry that every layout's result passes.

A file (or a plane of one) that is given for several is used for none: nobody knows whose it is. That holds for names
that are two spellings of one file, too.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from coda.plates.readers.listing import ImageRef, PlateListing


def each_image_once(plates: Sequence[PlateListing]) -> list[PlateListing]:
    """Return plates without the images that are given for several fields or stains: nobody knows whose they are."""
    claims = Counter(
        part for plate in plates for item in plate.fields for image in item.files.values() for part in image.parts
    )
    twice = {image for image, count in claims.items() if count > 1}
    return [_without(plate, twice) for plate in plates] if twice else list(plates)


def _without(plate: PlateListing, images: set[ImageRef]) -> PlateListing:
    taken = sorted({image.path for item in plate.fields for image in item.files.values() if images & set(image.parts)})
    if not taken:
        return plate
    fields = tuple(
        replace(item, files={stain: image for stain, image in item.files.items() if not images & set(image.parts)})
        for item in plate.fields
    )
    note = f"{len(taken)} image(s) are given for several fields or stains, and used for none (the first: {taken[0]})"
    return replace(plate, fields=fields, notes=(*plate.notes, note))
