"""A delivered batch as ingest leaves it, made of tables alone, with places to break it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers import moto_server

from coda.contracts import STAINS, BatchManifest
from coda.contracts.ingest import ContractProblem, IngestReport, PlateOutcome
from coda.contracts.manifest import FileEntry, Instrument, PlateEntry
from coda.local.offline import offline_settings
from coda.quality.stats import statistic_names
from coda.settings import Settings

__all__ = ["moto_server"]

DIGEST = "0" * 64
TYPICAL = {
    "p1": 250.0, "p5": 300.0, "p50": 700.0, "p95": 2400.0, "p99": 3500.0, "mean": 900.0, "saturation": 0.0,
    "near_black": 0.0, "dynamic_range": 0.05, "contrast": 0.8, "snr": 30.0, "focus": -3.0, "foreground": 0.35,
    "separability": 0.68, "compactness": 0.6,
}  # fmt: skip
BETWEEN = {"cells": 50.0, "corr": 0.4, "match": 15.0}
NUCLEAR = {"separability": 0.82, "foreground": 0.1, "focus": -3.7}
WELLS = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)]


@dataclass
class Batch:
    """Tables and documents of a batch; `write` puts them down as ingest would."""

    source: str = "lab_x"
    batch: str = "b1"
    plates: Sequence[str] = ("p1", "p2")
    instrument: str = "Microscope 1"
    seed: int = 0
    problems: list[ContractProblem] = field(default_factory=list)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = self._index()
        self.wells = self.index.drop_duplicates(["Metadata_Plate", "Metadata_Well"])[
            [name for name in self.index if name.startswith("Metadata_") and name not in LATER]
        ].reset_index(drop=True)

    def _index(self) -> pd.DataFrame:
        rng = np.random.default_rng([self.seed, *self.batch.encode()])
        rows = [
            self._row(plate, well, site, number, rng)
            for plate in self.plates
            for number, well in enumerate(WELLS)
            for site in (1, 2)
        ]
        return pd.DataFrame(rows)

    def change(self, column: str, value: object, plate: str = "p1") -> None:
        """Set a column of the index for all fields of one plate."""
        self.index[column] = self.index[column].mask(self.field_rows(plate), value)

    def _row(self, plate: str, well: str, site: int, number: int, rng: np.random.Generator) -> dict[str, Any]:
        control = number < 5
        compound = "DMSO" if control else f"CPD-{number}"
        row: dict[str, Any] = {
            "image_id": f"{self.source}/{self.batch}/{plate}/{well}/{site}",
            "Metadata_Source": self.source, "Metadata_Batch": self.batch, "Metadata_Plate": plate,
            "Metadata_Well": well, "Metadata_Site": site, "Metadata_Treatment": compound,
            "Metadata_Compound": compound, "Metadata_pert_type": "negcon" if control else "trt",
            "Metadata_Dose_uM": np.nan if control else 5.0, "Metadata_PixelSize_um": 1.2,
            "Metadata_Instrument": self.instrument, "channels": ",".join(STAINS), "store": f"{plate}.ome.zarr.zip",
            "array": f"{well}/{site}", "height": 128, "width": 128,
        }  # fmt: skip
        row["sha256"] = hashlib.sha256(row["image_id"].encode()).hexdigest()
        for name in statistic_names(STAINS, "DNA"):
            statistic, _, stain = name.partition("_")
            if name.startswith(("near_black", "dynamic_range")):
                statistic, stain = name.rsplit("_", 1)
            usual = TYPICAL[statistic] if statistic in TYPICAL else BETWEEN[statistic]
            if stain == "DNA" and statistic in NUCLEAR:
                usual = NUCLEAR[statistic]
            # what a compound does to the cells is the same on every plate, or its map would not fit
            shows = not control and statistic in ("compactness", "contrast", "corr")
            effect = 0.2 * np.sin(number * (1 + len(row) % 17)) if shows else 0.0
            row[f"QC_{name}"] = usual * (1 + effect + 0.03 * rng.standard_normal())
        return row

    def field_rows(self, plate: str) -> pd.Series:
        return self.index["Metadata_Plate"] == plate

    def write(self, dataset: Path) -> Path:
        folder = dataset / self.source / self.batch
        folder.mkdir(parents=True, exist_ok=True)
        manifest = self.manifest()
        manifest.write(folder / "manifest.json")
        self.ingest(manifest).write(folder / "ingest.json")
        self.index.to_parquet(folder / "index.parquet", index=False)
        self.wells.to_parquet(folder / "wells.parquet", index=False)
        return folder

    def manifest(self) -> BatchManifest:
        plates = tuple(
            PlateEntry(
                plate=plate, plate_map="map.csv", load_data="load.csv", sites_per_well=2,
                files=tuple(FileEntry(path=name, size_bytes=1, sha256=DIGEST) for name in ("map.csv", "load.csv")),
            )
            for plate in self.plates
        )  # fmt: skip
        return BatchManifest(
            source=self.source, batch=self.batch, created_at=datetime(2026, 1, 5, tzinfo=UTC),
            instrument=Instrument(name=self.instrument, modality="confocal", pixel_size_um=0.6),
            channels=STAINS, plate_wells=24, plates=plates,
        )  # fmt: skip

    def ingest(self, manifest: BatchManifest) -> IngestReport:
        outcomes = []
        for plate in self.plates:
            count = int(self.field_rows(plate).sum()) if "Metadata_Plate" in self.index else 0
            values: dict[str, Any] = {
                "plate": plate, "outcome": "accepted", "fields_expected": 48, "fields_accepted": count,
                "fields_readable": count, "content_key": DIGEST,
            }  # fmt: skip
            outcomes.append(PlateOutcome(**(values | self.outcomes.get(plate, {}))))
        return IngestReport(
            source=self.source, batch=self.batch, manifest_digest=manifest.digest(), channels=STAINS,
            fields_expected=48 * len(self.plates), fields_accepted=len(self.index), plates=tuple(outcomes),
            problems=tuple(self.problems), delivered=True,
        )  # fmt: skip


LATER = {"Metadata_Site", "Metadata_PixelSize_um", "Metadata_Instrument"}


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return Batch


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return offline_settings(tmp_path / "work")
