"""RxRx1: an experiment folder with `Plate1` to `Plate4`, each with 8-bit PNG files `<well>_s<site>_w<channel>.png`."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from coda.errors import ContractError, Problem
from coda.plates.adopt.found import FoundField, FoundPlate, safe_name
from coda.plates.layout import parse_well

CHANNELS = {"w1": "DNA", "w2": "ER", "w3": "AGP", "w4": "RNA", "w5": "Mito"}
"""Hoechst, concanavalin A, phalloidin, Syto 14 and MitoTracker. RxRx1 images actin (w3) and Golgi (w6) apart where
Cell Painting has both in one channel; actin stands for AGP here, and w6 is left out."""

_FILE = re.compile(r"^([A-Z]{1,2}[0-9]{2})_s([0-9]+)_(w[0-9])\.png$")


def find_plates(folder: Path, channels: Mapping[str, str]) -> list[FoundPlate]:
    """Return the plates of an experiment folder, such as `HUVEC-01`.

    Args:
        folder: Experiment folder.
        channels: Channel ('w1' to 'w6') -> stain; in place of `CHANNELS` for the channels it names.

    Raises:
        ContractError: There is no plate folder with such files.
    """
    stains = {**CHANNELS, **channels}
    plates = [
        _plate(folder, place, stains)
        for place in sorted(folder.iterdir() if folder.is_dir() else [])
        if place.is_dir() and re.fullmatch(r"Plate[0-9]+", place.name)
    ]
    found = [plate for plate in plates if plate.fields]
    if not found:
        remedy = "Name the folder of one experiment, for example train/HUVEC-01."
        problem = Problem(str(folder), "no RxRx1 image", "folders Plate1, Plate2, ... with B02_s1_w1.png, ...", remedy)
        raise ContractError(f"{folder} is not an RxRx1 experiment.", [problem])
    return found


def _plate(experiment: Path, folder: Path, stains: Mapping[str, str]) -> FoundPlate:
    sites: dict[tuple[int, int, int], dict[str, Path]] = {}
    left_out: Counter[str] = Counter()
    for path in sorted(folder.iterdir()):
        match = _FILE.match(path.name)
        place = parse_well(match.group(1)) if match else None
        if match is None or place is None:
            continue
        stain = stains.get(match.group(3))
        if stain is None:
            left_out[match.group(3)] += 1
            continue
        sites.setdefault((*place, int(match.group(2))), {})[stain] = path
    return FoundPlate(
        plate=safe_name(f"{experiment.name}_{folder.name}"),
        fields=tuple(FoundField(key[:2], key[2], sites[key]) for key in sorted(sites)),
        wells=384,
        modality="confocal",
        bit_depth=8,
        left_out=dict(left_out),
    )
