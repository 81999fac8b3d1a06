"""Small fields and networks: everything here takes milliseconds."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coda.config import Params, load_params
from coda.plates.fieldset import FieldSet
from coda.plates.store import PlateStoreWriter, checksum, encode
from coda.plates.store import StoredField as Field
from coda.plates.stored import Place, StoredFields

TINY = (
    "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
    "crops.centre=32",
    "crops.global_size=16",
    "crops.local_size=8",
    "crops.locals_per_image=3",
    "dino.prototypes=12",
    "dino.hidden_dim=16",
    "dino.bottleneck_dim=8",
    "pretrain.iterations=8",
    "pretrain.batch_size=6",
    "pretrain.checkpoint_every=3",
    "head.depth=1",
    "head.num_heads=2",
    "head.budget.iterations=40",
    "head.budget.batch_size=16",
    "compute.threads=1",
    "compute.precision=float32",
)

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")


@pytest.fixture(scope="session")
def tiny(root: Path) -> Callable[..., Params]:
    """Parameters of a network that trains in milliseconds, with changes as dotted.path=value."""

    def build(*changes: str) -> Params:
        return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], [*TINY, *changes])

    return build


@pytest.fixture(scope="session")
def make_table() -> Callable[..., pd.DataFrame]:
    """Builds a field index; every column can be given as a list."""

    def build(count: int, **columns: Any) -> pd.DataFrame:
        values: dict[str, Any] = {
            "image_id": [f"field_{number}" for number in range(count)],
            "Metadata_Source": "lab",
            "Metadata_Batch": [f"batch_{number % 3}" for number in range(count)],
            "Metadata_Plate": [f"plate_{number % 6}" for number in range(count)],
            "Metadata_Well": [f"A{number % 24 + 1:02d}" for number in range(count)],
            "Metadata_Site": 0,
            "Metadata_Treatment": [f"compound_{number // 6 % 4}" for number in range(count)],
            "Metadata_Compound": [f"compound_{number // 6 % 4}" for number in range(count)],
            "Metadata_pert_type": "trt",
        }
        return pd.DataFrame({**values, **{f"Metadata_{name}": column for name, column in columns.items()}})

    return build


@pytest.fixture(scope="session")
def fields(make_table: Callable[..., pd.DataFrame]) -> FieldSet:
    """Forty-eight noisy fields of four compounds, each with its own pattern, in three batches of two plates."""
    rng = np.random.default_rng(0)
    table = make_table(48)
    patterns = rng.integers(0, 160, (4, 3, 8, 8))
    kinds = [int(name[-1]) for name in table["Metadata_Compound"]]
    tiles = np.tile(patterns[kinds], (1, 1, 4, 4))
    images = (tiles + rng.integers(0, 90, tiles.shape)).astype(np.uint8)
    return FieldSet(images, table, ("DNA", "AGP", "RNA"))


@pytest.fixture
def stored(tmp_path: Path, fields: FieldSet) -> StoredFields:
    """The fields of the fixture, in two plate stores of five stains, in another order of stains."""
    places = []
    for number in range(2):
        path = tmp_path / f"plate_{number}.ome.zarr.zip"
        with PlateStoreWriter(path, f"plate_{number}", 96, STAINS, (1.0, 1.0), {}) as writer:
            for row in range(number, len(fields), 2):
                pixels = np.zeros((5, 32, 32), np.uint8)
                for channel, stain in enumerate(fields.channels):
                    pixels[STAINS.index(stain)] = fields.images[row, channel]
                chunk = encode(pixels)
                array = writer.add(Field((row // 12, row % 12), 1, pixels.shape, chunk))
                digest = hashlib.sha256(pixels.data).hexdigest()
                place = Place(path, array, pixels.shape, STAINS, digest, checksum(chunk), f"field_{row}")
                places.append((row, place))
    in_order = tuple(place for _, place in sorted(places, key=lambda item: item[0]))
    return StoredFields(in_order, fields.table, fields.channels, 32)
