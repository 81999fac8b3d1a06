"""Plates of delivered batches, ingested apart: in groups, each in a process or pod of its own."""

import re
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from coda.config.params import Params
from coda.contracts.manifest import PlateEntry
from coda.errors import ConfigError, Problem
from coda.plates.batch_ingest import ingest_plates
from coda.plates.disk import writing
from coda.plates.outputs import PlateFolders
from coda.plates.plate_plan import plate_fields_listed
from coda.plates.shelf import PlateShelf
from coda.settings import Settings
from coda.steps.counting import counted
from coda.steps.ingest import Delivery, earlier_functions, read_manifests, workers_for

GROUP_FIELDS = 1024
"""Fields of a group at least: fewer are read faster than a pod is started."""

MOST_GROUPS = 100
"""Groups at most: Kubeflow's loops are meant for tens to a few hundred items."""


def plan_groups(manifest_uris: Sequence[str], *, params: Params, settings: Settings) -> list[str]:
    """Divide the plates of batches into groups of similar size, in the order of manifests and plates.

    Returns:
        Names of the groups, ``<number>/<groups>``, at least one.

    Raises:
        ConfigError: No manifest is named.
        ContractError: A manifest cannot be used.
        TransientError: Object storage is away.
    """
    del params
    deliveries = read_manifests(manifest_uris, settings)
    count = len(_divided([_fields(item, entry) for item, entry in _plates(deliveries)]))
    return [f"{number + 1}/{count}" for number in range(count)]


def ingest_group(
    manifest_uris: Sequence[str], group: str, *, params: Params, settings: Settings, shelf: PlateShelf
) -> int:
    """Ingest the plates of one group, and keep them where the ingest of their batches finds them.

    Args:
        manifest_uris: As for `plan_groups`.
        group: Name of the group. A manifest that was replaced since the groups were made may divide otherwise; plates
            that no group took are ingested with their batch.
        params: The `ingest` and `quality` sections are used.
        settings: Where object storage is.
        shelf: Where finished plates stay.

    Returns:
        Number of plates.

    Raises:
        ConfigError: There is no such group, or the disk cannot be written.
        ContractError: A manifest cannot be used.
        TransientError: Object storage is away; finished plates remain.
    """
    named = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", group)
    if named is None:
        problem = Problem("group", repr(group), "<number>/<groups>, as the plan names it", "Give a group of the plan.")
        raise ConfigError("There is no such group of plates.", [problem])
    deliveries = read_manifests(manifest_uris, settings)
    earlier = earlier_functions(deliveries, params, settings)
    plates = _plates(deliveries)
    starts = _divided([_fields(item, entry) for item, entry in plates])
    bounds = dict(enumerate(pairwise([*starts, len(plates)]), 1))
    first, last = bounds.get(int(named[1]), (0, 0))
    chosen = plates[first:last]
    fields = sum(_fields(item, entry) for item, entry in chosen)
    with (
        tempfile.TemporaryDirectory(prefix="coda-plates-") as work,
        workers_for(fields, params) as workers,
        counted("Reading", unit="fields, each twice") as progress,
    ):
        for item in deliveries:
            own = [entry for delivery, entry in chosen if delivery is item]
            folders = PlateFolders(Path(work) / item.manifest.batch_id, Path(work) / item.manifest.batch_id / "work")
            with writing(folders.batch):
                folders.work.mkdir(parents=True, exist_ok=True)
                ingest_plates(
                    item.manifest, own, item.files, folders,
                    params=params, workers=workers, progress=progress, shelf=shelf,
                    earlier=earlier.get(item.manifest.instrument.name),
                )  # fmt: skip
    return len(chosen)


def _plates(deliveries: Sequence[Delivery]) -> list[tuple[Delivery, PlateEntry]]:
    return [(item, entry) for item in deliveries for entry in item.manifest.plates]


def _fields(item: Delivery, entry: PlateEntry) -> int:
    return plate_fields_listed(item.manifest, entry)


def _divided(fields: Sequence[int]) -> list[int]:
    """Return where groups begin: each ends as soon as it has its share of the fields."""
    share = max(GROUP_FIELDS, -(-sum(fields) // MOST_GROUPS))
    starts, held = [0], 0
    for place, count in enumerate(fields):
        if held >= share:
            starts.append(place)
            held = 0
        held += count
    return starts
