"""A table of batches by simulation: steady, a slow drift, a step, one bad plate, refused and held batches, releases."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from coda.contracts import STAINS, ModelRef, PointerEntry, ReleaseRecord
from coda.monitoring.batch_numbers import Number
from coda.monitoring.batch_row import Facts
from coda.monitoring.batch_table import write_batch

START = datetime(2025, 1, 6, 8, tzinfo=UTC)
CLASSES = ("actin", "dna damage", "er stress", "kinase", "tubulin")
LEVELS = {
    "focus": (-2.2, 0.04),
    "p50": (800, 30),
    "p95": (5200, 160),
    "saturation": (0.002, 0.0004),
    "near_black": (0.02, 0.002),
}
ANSWERS = {
    "confidence": (0.74, 0.02), "abstained_share": (0.06, 0.01), "top_class_share": (0.28, 0.02),
    "marginal_entropy": (0.98, 0.004), "changed_share": (0.21, 0.03),
}  # fmt: skip


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Story:
    """From batch `start` on: nothing, a `slow` drift, a `step`, a `bad_plate`, or class `shares` that move."""

    kind: str = "steady"
    start: int = 0


def release(source: str, number: int, at: datetime, action: str = "promote", sequence: int = 1) -> PointerEntry:
    record = ReleaseRecord(
        release_id=f"{source}-{number:04d}", source=source, created_at=at, method="coda+aligned",
        extractor=ModelRef(name="coda-extractor", version=number, digest=digest(f"e{number}")),
        head=ModelRef(name="coda-head", version=1, digest=digest("h")), alignment="standardise",
        base_release="train-lab_a-0", run_id=f"run-{number}", params_digest=digest("p"),
        gate_sentence="Replicates agree better than before.", approver="gate",
    )  # fmt: skip
    return PointerEntry(
        sequence=sequence, scope=source, action=action, release=record, by="gate", reason="The gate released it.", at=at
    )


def batch(source: str, k: int, plates: int, story: Story, rng: np.random.Generator) -> tuple[Facts, list[Number]]:
    at = START + timedelta(hours=14 * k)
    state = "refused" if k % 37 == 23 else "held" if k % 29 == 17 else "failed" if k % 101 == 60 else "released"
    facts = Facts(
        source, f"b{k:04d}", digest(f"{source}{k}"), state, at + timedelta(hours=5), at, "Opera Phenix",
        f"run-{k}", "adaptation", "refused" if state == "refused" else "accepted", "It ended as the rules say.",
        float(rng.normal(900, 40)), f"{source}-{k // 50 + 1:04d}",
        page=f"reports/{source}/b{k:04d}/{digest(f'{source}{k}')}/report.html",
    )  # fmt: skip
    if state == "failed":
        return facts, []
    age = max(0, k - story.start) if story.kind in ("slow", "step") else 0
    moved = {"slow": 0.15 * age, "step": 8.0 * (age > 0)}.get(story.kind, 0.0)
    names = [f"p{n:02d}" for n in range(plates)]
    numbers = [Number(measure="plates", value=plates), Number(measure="fields_accepted", value=plates * 96)]
    for measure, (level, spread) in LEVELS.items():
        for stain in STAINS:
            middle = rng.normal(level, spread) - (moved * spread if (measure, stain) == ("p95", "ER") else 0)
            values = rng.normal(middle, spread / 3, plates)
            if story.kind == "bad_plate" and k == story.start and measure in ("focus", "p95"):
                values[plates // 2] = middle - 9 * spread
            numbers.append(Number(measure=measure, subject=stain, value=float(np.median(values))))
            numbers += [
                Number(measure=measure, subject=stain, plate=p, value=float(v))
                for p, v in zip(names, values, strict=True)
            ]
            if measure == "p95":
                for kind, factor in (("negcon", 0.9), ("poscon", 1.2)):
                    numbers += [
                        Number(measure=f"{kind}_p95", subject=stain, plate=p, value=float(factor * v), n=8)
                        for p, v in zip(names, values, strict=True)
                    ]
    cells = rng.normal(62, 3)
    numbers += [
        Number(measure="cells", value=cells),
        *(Number(measure="cells", plate=p, value=float(rng.normal(cells, 1))) for p in names),
    ]
    numbers += [Number(measure="robust_z_prime", plate=p, value=float(rng.normal(0.62, 0.04))) for p in names]
    numbers += [Number(measure="quarantined_share", value=float(rng.beta(2, 400)))]
    for name, level in (("frechet_to_source", 2.5), ("mmd_controls", 0.9)):
        numbers.append(Number(measure=f"drift_before/{name}", value=float(rng.normal(level, 0.2 * level))))
        numbers.append(Number(measure=f"drift_after/{name}", value=float(rng.normal(level / 5, 0.03 * level))))
    if state != "refused":
        shares = rng.dirichlet([60, 50, 40, 70, 45])
        if story.kind == "shares" and k >= story.start:
            shares = shares + shares[3] * np.array([0, 0, 0, -0.6, 0.6])
        wells = 60 * plates
        numbers += [
            Number(measure="class_share", subject=c, value=float(v), n=wells)
            for c, v in zip(CLASSES, shares, strict=True)
        ]
        numbers += [
            Number(measure="reference", subject=f"REF-{i}", value=0.8, text=CLASSES[(i + (k % 41 == 40)) % 5])
            for i in range(5)
        ]
        odd = np.random.default_rng([k, 1])  # a stream of its own: what is drawn above stays as it was
        numbers += [
            Number(measure="compound", subject=f"CPD-{i}", value=0.6, text=CLASSES[(i + (odd.random() < 0.1)) % 5])
            for i in range(k % 3, 30, 3)
        ]
        numbers += [Number(measure=name, value=float(rng.normal(*usual))) for name, usual in ANSWERS.items()]
        numbers += [
            Number(measure="gate_chosen", subject="coda+aligned", text="release"),
            Number(measure="gate_gain", subject="coda+aligned", value=float(rng.normal(0.2, 0.04)), low=0.1, high=0.3),
            Number(measure="gate/agreement", subject="coda+aligned", value=float(rng.normal(0.55, 0.03))),
        ]
    return facts, numbers


def write_history(
    store, source: str, count: int, plates: int, story: Story = Story(), seed: int = 0
) -> list[PointerEntry]:
    """Write so many batches into the table, and return the moves of the source's pointer."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        write_batch(store, *batch(source, k, plates, story, rng))
    moves, sequence = [], 0
    for number in range(1, count // 50 + 2):
        sequence += 1
        moves.append(release(source, number, START + timedelta(hours=14 * 50 * (number - 1) + 4), sequence=sequence))
        if number == 3:
            sequence += 1
            back = START + timedelta(hours=14 * (50 * (number - 1) + 20))
            moves.append(release(source, 2, back, "rollback", sequence))
    return moves


def frame_of(source: str, count: int, plates: int, story: Story = Story(), seed: int = 0) -> pd.DataFrame:
    """Return the same without a store."""
    import pyarrow as pa

    from coda.monitoring.batch_row import table_of

    rng = np.random.default_rng(seed)
    table = pa.concat_tables(
        [table_of(*batch(source, k, plates, story, rng)) for k in range(count)]
    ).unify_dictionaries()
    frame = table.to_pandas()
    for name in ("source", "batch", "manifest_digest", "plate", "measure", "subject"):
        frame[name] = frame[name].astype(str)
    return frame
