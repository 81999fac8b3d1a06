"""What `coda plates import` does with the images: leave them where they lie, link them, or copy them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coda.cli.manifest_build import progress_bar
from coda.contracts.manifest import MANIFEST_NAME
from coda.errors import ConfigError, ContractError, Problem
from coda.plates.manifests.digests import KeptDigests
from coda.plates.manifests.draft import draft_of, sizes_of
from coda.plates.manifests.places import LocalPlace, Place
from coda.plates.manifests.publish import publish
from coda.plates.readers.assemble import Identity
from coda.plates.readers.deliver import links_work
from coda.plates.readers.listing import PlateListing
from coda.plates.readers.read_options import ReadOptions
from coda.settings import Settings
from coda.storage.image_places import VARIABLE
from coda.storage.named_places import images_tree

Images = Literal["auto", "in-place", "copy"]

FEW_BYTES = 1_000_000_000
"""What is copied without being asked for, where nothing else will do."""

WORKERS = 16
"""Images that are read at once for their digests."""


@dataclass(frozen=True)
class Way:
    """What happens to the images, and why in a sentence."""

    in_place: bool
    linking: bool
    said: str


def way_of(images: Images, tree: Place, found: Sequence[PlateListing], target: Path, settings: Settings) -> Way:
    """Choose what happens to the images of found plates.

    Raises:
        ContractError: They shall stay, and some are no files of their own.
        ConfigError: Many bytes would be copied, and nobody asked for it.
    """
    parts = [image for plate in found for item in plate.fields for image in item.files.values() if not image.is_file]
    if images == "in-place" and parts:
        what = f"{len(parts)} images that are planes of larger files, or made of several ({parts[0].path})"
        remedy = (
            "They must be written out: --images auto (or copy); or choose single planes that are files of their own."
        )
        problem = Problem(tree.where, what, "one file for each image", remedy)
        raise ContractError("These images cannot stay where they lie.", [problem])
    if images == "in-place":
        return Way(in_place=True, linking=False, said=f"Images stay at {tree.where}.")
    if images == "copy":
        return Way(in_place=False, linking=False, said="Images are copied.")
    if parts:
        said = f"{len(parts)} images are planes of larger files, or made of several: they are written out."
        return Way(in_place=False, linking=True, said=said)
    if _read_there(tree, settings):
        return Way(in_place=True, linking=False, said=f"Images stay at {tree.where}, where ingest may read them.")
    sizes: dict[str, int] = {}
    for plate in found:
        sizes |= sizes_of(tree, plate)
    if sizes and links_work(tree, min(sizes), target):
        return Way(in_place=False, linking=True, said="Images are linked, not copied: they lie on the disk of OUT.")
    size = sum(sizes.values())
    stay = f"they can stay where they lie with --images in-place, once {VARIABLE} names {tree.where} (docs/settings.md)"
    if size <= FEW_BYTES:
        return Way(in_place=False, linking=False, said=f"{size / 1e9:.2f} GB of images are copied; {stay}.")
    remedy = f"Say which: {stay}; or --images copy."
    problem = Problem(tree.where, f"{size / 1e9:.1f} GB of images on another disk", "a reference to them", remedy)
    raise ConfigError("Many images would have to be copied.", [problem])


def _read_there(tree: Place, settings: Settings) -> bool:
    try:
        images_tree(tree.where, settings)
    except ContractError:
        return False
    return True


def leave(
    tree: Place, found: Sequence[PlateListing], layout: str, options: ReadOptions, identity: Identity, target: Path,
    work: Path,
) -> tuple[Path, list[str]]:  # fmt: skip
    """Write tables and manifest of plates whose images stay; each image is read once, for its digest.

    Returns:
        The manifest's path, and remarks.

    Raises:
        ContractError: The plates cannot be described, or images changed while they were read.
        TransientError: The storage is away; the same call resumes.
    """
    out = LocalPlace(target)
    images_at = None if out.where == tree.where else tree.where
    made = draft_of(found, tree, layout, options, identity, images_at=images_at)
    with KeptDigests(work, tree.where) as kept, progress_bar(len(made.files), made.size_bytes) as advance:
        publish(made, tree, out, kept, workers=WORKERS, progress=advance, replacing=True)
    absent = [f"{len(made.absent)} image(s) are absent; ingest sets their fields aside."] if made.absent else []
    return target / MANIFEST_NAME, [*made.remarks, *absent]
