"""What a run of `coda benchmark speed` says, as tables and as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.speed.contest import Compared
from benchmarks.speed.throughput import ScaleReport, SpeedReport
from coda.benchmark.benchmark_report import ReportTable, write_report
from coda.benchmark.machine import DENSE_BFLOAT16

TITLE = "Speed of the engine"
CUSTOMARY = (
    "Customary: one PNG a field, decoded by Pillow in two workers of a torch DataLoader, crops cut and standardised "
    "one by one, partners looked up in pandas, float32, one forward pass for each crop, loops over loss terms and "
    "parameters. Networks, schedules and loss are the same. Both ways take turns in the same minutes; the interval is "
    "Student's over the turns, at 95 %."
)
UTILISATION = (
    "Utilisation: the method's work (2 FLOP a multiply-add, matrix products only, a backward pass twice its forward "
    "pass) times our samples a second at the best turn, over the best rate of a matrix product in the same precision "
    "with the same threads. Other programs on the machine lower every rate and both sides of a ratio, not always alike."
)


def speed_tables(report: SpeedReport) -> list[ReportTable]:
    """Return the table of comparisons, the table of the engine against the machine, and the machine itself."""
    compared = [row for scale in report.scales for row in _comparisons(scale)]
    machine = [_against_machine(scale, report) for scale in report.scales]
    rates = [
        {"precision": rate.dtype, "device": rate.device, "threads": rate.threads, "GFLOP_per_s": rate.flops / 1e9}
        for rate in report.rates
    ]
    return [
        ReportTable("speed", "By turns", pd.DataFrame(compared)),
        ReportTable("utilisation", "Against the machine", pd.DataFrame(machine)),
        ReportTable("matrix_rate", "Measured rate of a matrix product", pd.DataFrame(rates)),
    ]


def write_speed_report(folder: Path, report: SpeedReport) -> Path:
    """Write CSVs and the page, and return the page."""
    return write_report(
        folder, TITLE, speed_tables(report), notes=[CUSTOMARY, UTILISATION], facts=machine_facts(report)
    )


def machine_facts(report: SpeedReport) -> dict[str, str]:
    """Return a description of the machine."""
    machine = report.machine
    facts = {
        "Processor": f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads",
        "Load before": f"{machine.load:.1f} running processes",
        "GPU": machine.gpu or "none: nothing here was measured on a GPU",
        "torch": machine.torch,
    }
    told = {card: rate for card, rate in DENSE_BFLOAT16.items() if machine.gpu and card in machine.gpu}
    return facts | {f"Told of a {card}": f"{rate / 1e12:.0f} TFLOP/s in bfloat16" for card, rate in told.items()}


def as_json(report: SpeedReport) -> dict[str, Any]:
    """Return all numbers of a report, the derived ones included."""
    scales = [
        {
            **asdict(scale),
            "utilisation": scale.utilisation,
            "feed_share": scale.feed_share,
            "comparisons": _comparisons(scale),
        }
        for scale in report.scales
    ]
    return {"machine": asdict(report.machine), "rates": [asdict(rate) for rate in report.rates], "scales": scales}


def _comparisons(scale: ScaleReport) -> list[dict[str, Any]]:
    named: list[tuple[str, str, str, Compared | None]] = [
        ("training", "customary", f"engine, {scale.precision}", scale.loop),
        ("views alone", "customary", "engine", scale.feed),
        ("side by side", "one process", "one process a thread", scale.side_by_side),
        ("torch.compile", "off", "on", scale.compiled),
    ]
    rows = []
    for what, first, second, compared in named:
        if compared is None:
            continue
        low, high = compared.interval()
        rows.append({
            "network": scale.name, "what": what, "A": first, "B": second,
            "A_samples_per_s": _middle(compared.customary), "B_samples_per_s": _middle(compared.ours),
            "B_over_A": compared.ratio, "low": low, "high": high, "turns": len(compared.ours),
        })  # fmt: skip
    return rows


def _against_machine(scale: ScaleReport, report: SpeedReport) -> dict[str, Any]:
    row = {
        "network": scale.name, "size": scale.network, "precision": scale.precision, "batch": scale.batch_size,
        "GFLOP_per_sample": scale.flops_per_sample / 1e9,
        "best_samples_per_s": max(scale.loop.ours),
        "ideal_samples_per_s": scale.machine_rate.flops / scale.flops_per_sample,
        "utilisation": scale.utilisation, "views_share_of_step": scale.feed_share,
        "peak_GiB_customary": scale.peak_bytes["customary"] / 2**30,
        "peak_GiB_engine": scale.peak_bytes["ours"] / 2**30,
    }  # fmt: skip
    gpu = report.machine.gpu or ""
    told = next((rate for card, rate in DENSE_BFLOAT16.items() if card in gpu), None)
    if told is not None and scale.precision == "bfloat16":
        row["share_of_told_rate"] = max(scale.loop.ours) * scale.flops_per_sample / told
    return row


def _middle(rates: tuple[float, ...]) -> float:
    return float(pd.Series(rates).median())
