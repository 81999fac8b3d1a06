"""Small outputs of the steps, made by hand after the contracts, so that a report can be tested without any step."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from changed_batches import compared

from coda.contracts import (
    STAINS,
    BatchManifest,
    CandidateScore,
    Check,
    GateReport,
    Measure,
    ModelRef,
    QualityReport,
    QuarantinedField,
    ReleaseRecord,
)
from coda.contracts.manifest import FileEntry, Instrument, PlateEntry
from coda.contracts.quality import PlateFigures
from coda.evaluation.predictions.prediction_levels import compound_table, field_table, well_table
from coda.plates.layout import well_name

CLASSES = ("actin", "dna damage", "er stress", "kinase", "tubulin")
COMPOUNDS = {f"CPD-{k:02d}": CLASSES[k % len(CLASSES)] for k in range(10)}
MADE = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
WIDTH = 16


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """Folders and files of one run, as the report step takes them."""

    dataset: Path
    candidates: Path
    gate: Path
    release: Path
    predictions: Path

    def arguments(self) -> dict[str, Path]:
        return {name: getattr(self, name) for name in ("candidates", "gate", "release", "predictions")}


def manifest(
    source: str = "lab_b", batch: str = "b3", plates: Sequence[str] = ("p1", "p2", "p3"), *, days: int = 0
) -> BatchManifest:
    files = tuple(
        FileEntry(path=f"{plate}/{name}.csv", size_bytes=10, sha256=digest(f"{source}{batch}{plate}{name}"))
        for plate in plates
        for name in ("map", "load")
    )
    entries = tuple(
        PlateEntry(
            plate=plate,
            plate_map=f"{plate}/map.csv",
            load_data=f"{plate}/load.csv",
            sites_per_well=2,
            files=files[2 * k : 2 * k + 2],
        )
        for k, plate in enumerate(plates)
    )
    return BatchManifest(
        source=source,
        batch=batch,
        created_at=MADE + timedelta(days=days),
        instrument=Instrument(name="Opera Phenix", modality="confocal", objective="20x/1.0", pixel_size_um=0.6),
        channels=STAINS,
        plate_wells=96,
        plates=entries,
    )


def index(document: BatchManifest, rng: np.random.Generator) -> pd.DataFrame:
    """Twenty treated and four control wells a plate, two sites each, with an edge effect and a dim third plate."""
    rows = []
    for number, plate in enumerate(document.plates):
        for place in range(24):
            row, column = divmod(place, 6)
            control = place % 6 == 5
            compound = "DMSO" if control else f"CPD-{(place - place // 6) % 10:02d}"
            for site in range(plate.sites_per_well):
                edge = row in (0, 3) or column in (0, 5)
                values = {
                    "QC_cells_DNA": 40 - 8 * edge + rng.normal(0, 3),
                    **{f"QC_focus_{stain}": -2.2 - 0.2 * (number == 2) + rng.normal(0, 0.05) for stain in STAINS},
                    **{f"QC_p50_{stain}": 800 * (1 - 0.3 * (number == 2)) + rng.normal(0, 40) for stain in STAINS},
                    **{f"QC_p95_{stain}": 5200 - 700 * edge + rng.normal(0, 200) for stain in STAINS},
                    **{f"QC_near_black_{stain}": 0.02 + 0.01 * rng.random() for stain in STAINS},
                    **{f"QC_saturation_{stain}": 0.0 for stain in STAINS},
                }
                well = well_name(row + 1, column + 2)
                rows.append(
                    {
                        "image_id": f"{document.batch_id}/{plate.plate}/{well}/{site}",
                        "Metadata_Source": document.source,
                        "Metadata_Batch": document.batch,
                        "Metadata_Plate": plate.plate,
                        "Metadata_Well": well,
                        "Metadata_Site": site,
                        "Metadata_Treatment": compound if control else f"{compound}@5",
                        "Metadata_Compound": compound,
                        "Metadata_pert_type": "negcon" if control else "trt",
                        "Metadata_Dose_uM": None if control else 5.0,
                        **values,
                    }
                )
    return pd.DataFrame(rows)


def quality(document: BatchManifest, verdict: str = "accepted_with_warnings") -> QualityReport:
    refused = verdict == "refused"
    checks = [
        Check(
            name="complete", group="contract", severity="critical", passed=not refused, where="plate p3",
            observed="4 of 48 fields readable", expected="at least 90 %",
            reason="Most images of plate p3 cannot be read.", remedy="Upload the plate again.",
        ),
        Check(
            name="focus", group="plate", severity="warning", passed=verdict == "accepted", where="plate p3, DNA",
            observed="-2.4", expected="-2.3 to -2.1", reason="Plate p3 is a little out of focus.",
            remedy="Check the autofocus offset before the next batch.",
        ),
        Check(
            name="controls", group="plate", severity="critical", passed=True, where="all plates",
            observed="4 wells", expected="at least 4", reason="Every plate has negative controls.", remedy="",
        ),
    ]  # fmt: skip
    names = tuple(plate.plate for plate in document.plates)
    return QualityReport(
        source=document.source,
        batch=document.batch,
        manifest_digest=document.digest(),
        suite_version="cell-painting-v1",
        verdict=verdict,
        sentence="Nothing of this batch may be used: too many images cannot be read."
        if refused
        else "The batch may be used; one plate is a little out of focus.",
        fields_expected=48 * len(names),
        fields_accepted=0 if refused else 48 * len(names) - 2,
        plates_accepted=() if refused else names,
        plates_refused=names if refused else (),
        checks=tuple(checks),
        plates=(
            PlateFigures(
                plate=names[0], red_flag="gray", red_flag_reason="late <fixation>", cells_median=61.5,
                edge_effect=-1.25, edge_statistic="p50_ER", ssmd=-11.7, robust_z_prime=0.67,
                control_statistic="p50_AGP", replicate_spread=0.42, replicate_pairs=24,
                negcon_cv=0.09, negcon_statistic="mean_ER",
            ),
            *(PlateFigures(plate=name) for name in names[1:]),
        ),
        quarantined=(
            QuarantinedField(
                plate=names[0], well="B02", site=0, channel="RNA", path="p1/B02_0_RNA.tiff",
                reason="was changed since the manifest was written (its SHA-256 is another)",
            ),
            QuarantinedField(plate=names[0], well="B03", site=1, channel="ER", reason="The TIFF is truncated."),
        ),
    )  # fmt: skip


def write_batch(dataset: Path, document: BatchManifest, verdict: str = "accepted_with_warnings") -> Path:
    folder = dataset / document.source / document.batch
    document.write(folder / "manifest.json")
    quality(document, verdict).write(folder / "quality.json")
    rng = np.random.default_rng(3)
    if verdict != "refused":
        index(document, rng).to_parquet(folder / "index.parquet")
        write_examples(folder / "examples", document, rng)
    return folder


def write_examples(folder: Path, document: BatchManifest, rng: np.random.Generator, side: int = 96) -> None:
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:side, 0:side] / side
    shade = 1.0 - 0.6 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    for plate in document.plates:
        cells = np.zeros((2, len(STAINS), side, side))
        for _ in range(25):
            cy, cx, r = rng.random(), rng.random(), 0.03 + 0.03 * rng.random()
            for k in range(len(STAINS)):
                blob = np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / (r * (1 + 0.4 * k)) ** 2))
                cells[rng.integers(2), k] += blob
        corrected = (255 * np.clip(cells, 0, 1)).astype(np.uint8)
        raw = (200 * np.clip(cells * shade + 0.1 * shade, 0, 1)).astype(np.uint8)
        names = [f"{document.batch_id}/{plate.plate}/B0{2 + k}/{k}" for k in range(2)]
        np.savez_compressed(
            folder / f"{plate.plate}.npz", image_id=np.array(names), channels=np.array(STAINS), raw=raw,
            corrected=corrected,
        )  # fmt: skip


def predictions(rows: pd.DataFrame, sharpness: float, rng: np.random.Generator) -> pd.DataFrame:
    truth = np.array([CLASSES.index(COMPOUNDS[name]) if name in COMPOUNDS else 0 for name in rows["Metadata_Compound"]])
    logits = rng.normal(0, 1, (len(rows), len(CLASSES))) + sharpness * np.eye(len(CLASSES))[truth]
    p = np.exp(logits)
    return field_table(rows, p / p.sum(axis=1, keepdims=True), CLASSES)


def gate_report(document: BatchManifest, outcome: str = "release") -> GateReport:
    def score(name: str, agreement: float, gain: float | None, *, healthy: bool = True) -> CandidateScore:
        return CandidateScore(
            name=name,
            healthy=healthy,
            health_reasons=() if healthy else ("one mechanism takes 82 % of the fields; at most 60 % are allowed",),
            measures={
                "agreement": Measure(value=agreement, low=agreement - 0.05, high=agreement + 0.05, n=10),
                "replicate_map": Measure(value=agreement / 2, low=0.1, high=0.6, n=10),
                "top_class_share": Measure(value=0.31 if healthy else 0.82, n=144),
            },
            gain=None if gain is None else Measure(value=gain, low=gain - 0.04, high=gain + 0.04, n=10),
        )

    scores = (
        score("unadapted", 0.31, None),
        score("aligned", 0.44, 0.13),
        score("coda", 0.29, -0.02, healthy=False),
        score("coda+aligned", 0.58, 0.27),
    )
    chosen = {"release": "coda+aligned", "keep_incumbent": "unadapted"}.get(outcome)
    return GateReport(
        source=document.source,
        batch=document.batch,
        manifest_digest=document.digest(),
        policy_version="gate-v1",
        baseline="unadapted",
        candidates=scores,
        outcome=outcome,
        chosen=chosen,
        sentence=f"The decision on {document.batch_id} is {outcome}: agreement across plates changed by +0.27.",
        advice=("Only 10 compounds were seen on two batches or plates; the intervals are wide.",),
    )


def release_record(document: BatchManifest, params_digest: str | None = None) -> ReleaseRecord:
    return ReleaseRecord(
        release_id=f"{document.source}-0007",
        source=document.source,
        created_at=MADE + timedelta(hours=2),
        method="coda+aligned",
        extractor=ModelRef(name="coda-extractor", version=4, digest=digest("extractor")),
        head=ModelRef(name="coda-head", version=2, digest=digest("head")),
        alignment="standardise",
        run_id="run-1",
        params_digest=params_digest or digest("params"),
        gate_sentence="It was better.",
        approver="gate",
    )


def write_run(
    folder: Path,
    *,
    outcome: str = "release",
    verdict: str = "accepted_with_warnings",
    params_digest: str | None = None,
) -> Run:
    """Write everything an adaptation run leaves behind, with a reference batch in the candidates' fields."""
    document = manifest()
    run = Run(
        folder / "dataset", folder / "candidates", folder / "gate.json", folder / "rel.json", folder / "predictions"
    )
    write_batch(run.dataset, document, verdict)
    rng = np.random.default_rng(5)
    rows = pd.concat([index(document, rng), index(manifest(batch="b2"), rng)], ignore_index=True)
    rows = rows[[name for name in rows.columns if not name.startswith("QC_")]]
    run.candidates.mkdir(parents=True)
    rows.to_parquet(run.candidates / "fields.parquet")
    effect = rng.normal(0, 1, (len(COMPOUNDS) + 1, WIDTH))
    names = [*COMPOUNDS, "DMSO"]
    signal = effect[[names.index(name) for name in rows["Metadata_Compound"]]]
    shift = np.where(rows["Metadata_Batch"].to_numpy() == "b3", 3.0, 0.0)[:, None] * np.ones(WIDTH)
    noise = rng.normal(0, 0.4, signal.shape)
    np.save(run.candidates / "features_base.npy", (signal + shift + noise).astype(np.float32))
    np.save(run.candidates / "features_adapted.npy", (signal + noise).astype(np.float32))
    new = rows[rows["Metadata_Batch"] == "b3"].reset_index(drop=True)
    for name, sharpness in (("unadapted", 0.5), ("coda+aligned", 3.0)):
        (run.candidates / name).mkdir()
        predictions(new, sharpness, np.random.default_rng(7)).to_parquet(run.candidates / name / "predictions.parquet")
    np.save(run.candidates / "coda+aligned" / "features.npy", (signal + noise / 2).astype(np.float32))
    drift = {"base": {"to_source_mean": 2.5, "controls_between_groups": 0.9}, "adapted": {"to_source_mean": 0.4}}
    (run.candidates / "drift.json").write_text(json.dumps(drift))
    numbers = {"method": "coda", "loss_first": 5.1, "loss_last": 4.2, "seconds": 31.0, "pairable_share": 0.98}
    (run.candidates / "training.json").write_text(json.dumps(numbers))
    told = compared(dim="ER", batch=document.batch)
    told.write(run.candidates / "changed.json")
    images = rng.integers(0, 4000, (len(told.pairs), 2, len(STAINS), 24, 24), dtype=np.uint16)
    np.savez_compressed(run.candidates / "changed.npz", images=images)
    gate_report(document, outcome).write(run.gate)
    release_record(document, params_digest).write(run.release)
    fields = predictions(new, 3.0, np.random.default_rng(7))
    wells = well_table(fields)
    run.predictions.mkdir()
    for name, table in (("field", fields), ("well", wells), ("compound", compound_table(wells))):
        table.to_parquet(run.predictions / f"{name}.parquet")
    return run


def write_metrics(path: Path) -> Path:
    path.write_text(json.dumps({"none": {"accuracy_field": 0.62, "accuracy_well": 0.71}, "held_out": ["b4"]}))
    return path
