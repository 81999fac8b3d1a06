"""RxRx1: an experiment folder with `Plate1` to `Plate4`, each with 8-bit PNG files `<well>_s<site>_w<channel>.png`."""

import re
from collections import defaultdict

from coda.plates.layout import parse_well
from coda.plates.readers.channel_names import Channels
from coda.plates.readers.listing import ImageRef, PlateListing
from coda.plates.readers.plate_builder import PlateBuilder, check
from coda.plates.readers.read_options import ReadOptions, refusal
from coda.plates.tree import Tree

CHANNELS = {"w1": "DNA", "w2": "ER", "w3": "AGP", "w4": "RNA", "w5": "Mito", "w6": "Golgi"}
"""Hoechst, concanavalin A, phalloidin, Syto 14, MitoTracker and wheat germ agglutinin. RxRx1 images actin (w3) and
Golgi (w6) apart where Cell Painting has both in one channel: actin stands for AGP here, unless the user says more."""

_APART = "AGP is actin alone (w3), Golgi is a channel of its own (w6): a model that learned AGP saw both in one"

_FILE = re.compile(r"^(Plate[0-9]{1,3})/([A-Z]{1,2}[0-9]{2})_s([0-9]{1,4})_(w[0-9])\.png$", re.IGNORECASE)


def recognised(tree: Tree) -> bool:
    """Return whether the tree holds files named as RxRx1 names them."""
    return any(_FILE.match(file.path) for file in tree.files())


def find_plates(tree: Tree, options: ReadOptions) -> list[PlateListing]:
    """Return the plates of an experiment folder, such as `HUVEC-01`.

    Args:
        tree: Experiment folder; its name becomes a part of the plates' names.
        options: Channels ('w1' to 'w6') -> names, in place of `CHANNELS` for those it names.

    Raises:
        ContractError: There is no plate folder with such files.
    """
    stains = Channels(options.channels, CHANNELS)
    paths = [file.path for file in tree.files()]
    present = set(paths)
    plates: dict[str, PlateBuilder] = defaultdict(
        lambda: PlateBuilder(present, stains, options=options, wells=384, once="one file for each field and stain")
    )
    for path in paths:
        match = _FILE.match(path)
        place = parse_well(match.group(2)) if match else None
        if match is None or place is None:
            continue
        plate, channel = plates[match.group(1)], match.group(4)
        stain = plate.stain(channel, told=channel)
        if stain is not None:
            plate.add(place, int(match.group(3)), stain, ImageRef(path), where=path)
    check(tree.where, plates.values())
    found = {name: plate for name, plate in sorted(plates.items()) if plate.fields()}
    if not found:
        remedy = "Name the folder of one experiment, for example train/HUVEC-01."
        raise refusal(tree.where, "no RxRx1 image", "folders Plate1, Plate2, ... with B02_s1_w1.png, ...", remedy)
    as_usual = {stains.stain(name) for name in ("w3", "w6")} == {"AGP", "Golgi"}
    stains.seen = dict.fromkeys(CHANNELS)
    experiment = tree.where.rstrip("/").rpartition("/")[2]
    return [
        plate.listing(
            f"{experiment}_{name}", [_APART] * (as_usual and number == 0), wells=384, modality="confocal", bit_depth=8
        )
        for number, (name, plate) in enumerate(found.items())
    ]
