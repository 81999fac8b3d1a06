"""Plates of images whose names say well, site and channel number, where the index or the table got lost."""

from collections import defaultdict
from collections.abc import Sequence

from coda.plates.readers.channel_names import Channels
from coda.plates.readers.image_names import Family, parse_image
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.plate_builder import PlateBuilder, check
from coda.plates.readers.read_options import ReadOptions, at
from coda.plates.tree import Tree


def gather_names(paths: Sequence[str], channels: Channels, options: ReadOptions) -> PlateBuilder:
    """Gather the images of one plate by what their names say.

    Args:
        paths: Files of the plate; those whose names are of no family, and thumbnails, do not count.
        channels: Channel numbers ('ch6', 'C06', 'w6' or '6') -> stain; a number means nothing by itself.
        options: Plane and time point of stacks.
    """
    builder = PlateBuilder(set(paths), channels, options=options)
    for path in paths:
        name = parse_image(path.rpartition("/")[2])
        if name is None or name.thumbnail:
            continue
        stain = builder.stain(*name.labels, told=name.labels[0])
        if stain is not None:
            image = ImageRef(path)
            builder.add(name.place, name.site, stain, image, where=path, plane=name.plane, time=name.time)
    return builder


def plates_by_names(tree: Tree, family: Family, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of a tree whose images have names of a family, one for each folder (and prefix of names).

    Args:
        tree: One plate, or a folder with several.
        family: Family of the names.
        options: Channel numbers -> stain; plane and time point of stacks.

    Returns:
        The plates; none when no name is of the family.

    Raises:
        ContractError: A field has several images of a stain.
    """
    plates: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in tree.files():
        folder, _, file_name = file.path.rpartition("/")
        name = parse_image(file_name)
        if name is not None and name.family == family:
            plates[folder.removesuffix("Images").rstrip("/"), name.fields.get("plate", "")].append(file.path)
    channels = Channels(options.channels)
    gathered = {key: gather_names(paths, channels, options) for key, paths in sorted(plates.items())}
    check(tree.where, gathered.values())
    return [
        builder.listing(
            prefix or at(tree, folder).rstrip("/").rpartition("/")[2].partition("__")[0],
            ["no index; the images were read by their names"],
        )
        for (folder, prefix), builder in gathered.items()
    ]
