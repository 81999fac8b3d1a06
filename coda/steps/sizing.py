"""How much memory the steps that hold images are to have, by the size of the batches: what a cluster is asked for."""

import math
from collections.abc import Sequence

from coda.config.params import Params
from coda.plates.plate_plan import fields_listed
from coda.settings import Settings
from coda.steps.ingest import read_manifests
from coda.training.images import HOST_SHARE

GIB = 1 << 30

WITHOUT_IMAGES_GIB = 16
"""What a step takes besides its images: torch with CUDA, networks and optimiser, tables and features of a hundred
thousand fields, and shared memory, which counts as the pod's (``/dev/shm`` in pipelines/resources.py: 8)."""

MOST_GIB = 64
"""What is asked for at most where images may stay in the plate stores (``compute.images: auto``): larger batches are
read by range, with the same results."""


def memory_for(fields: int, params: Params) -> str:
    """Return the memory for a step that holds the images of so many fields, as a Kubernetes quantity.

    `coda.training.images.place_fields` holds images (uint8, extractor.channels x crops.centre x crops.centre a field)
    in at most `HOST_SHARE` of the memory that its container may use; where they are more, it reads plate stores.

    Args:
        fields: Fields of the batches, those of the archive included.
        params: `compute.images`, `extractor.channels` and `crops.centre` are used.
    """
    if params.compute.images == "stored":
        return f"{WITHOUT_IMAGES_GIB}Gi"
    images = fields * len(params.extractor.channels) * params.crops.centre**2
    asked = WITHOUT_IMAGES_GIB + math.ceil(images / HOST_SHARE / GIB)
    return f"{min(asked, MOST_GIB) if params.compute.images == 'auto' else asked}Gi"


def plan_memory(manifest_uris: Sequence[str], *, params: Params, settings: Settings, with_archive: bool) -> str:
    """Return the memory for the step that learns from batches, by their manifests alone.

    Args:
        manifest_uris: One manifest a batch.
        params: As for `memory_for`; with an archive, `adaptation.archive_fields` too.
        settings: Where object storage is.
        with_archive: Whether fields of earlier batches are read beside them.

    Raises:
        ConfigError: No manifest is named.
        ContractError: A manifest cannot be used.
        TransientError: Object storage is away.
    """
    fields = sum(fields_listed(item.manifest) for item in read_manifests(manifest_uris, settings))
    earlier = params.adaptation.archive_fields if with_archive and params.adaptation.archive_batches else 0
    return memory_for(fields + earlier, params)
