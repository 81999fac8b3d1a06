"""What a run of `coda benchmark ingest` says, as tables and as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.ingest.ingest_speed import SAME_WORK, TARGET2_CORES, TARGET2_FIELDS, USD_PER_GB_MONTH, IngestReport
from benchmarks.ingest.ingest_stages import CODECS, OURS
from coda.benchmark.benchmark_report import ReportTable, write_report

TITLE = "Speed of ingest"
STAGES = (
    "CPU time of one core for a field of five stains; the best turn. Read: fetch from the disk, verify SHA-256, decode "
    "LZW. Illumination: sums and histograms. Scratch: to the scratch disk and back, in place of reading twice. "
    "Correct: divide, reduce, stretch to 8 bits. Compress: blosc lz4, CRC-32C, SHA-256. MB are 10**6 bytes of raw "
    "pixels."
)
OBVIOUS = (
    "The obvious way: scikit-image, an image at a time, PNG; it reads twice and has no quality statistics, so that the "
    "comparison leaves ours out. Both prepare the same fields in the same minutes."
)
LOAD = (
    "Loading: all stains of a plate into one array, in one thread. The codec alone decodes the same chunks, which are "
    "in memory already, into such an array. Ours also finds, reads and verifies them."
)


def ingest_tables(report: IngestReport) -> list[ReportTable]:
    """Return stages, comparisons, the whole ingest, loading and codecs."""
    return [
        ReportTable("stages", "A field, stage by stage", _stages(report)),
        ReportTable("compared", "Against the codecs alone and the obvious way", _compared(report)),
        ReportTable("plates", "A plate, whole", _plates(report)),
        ReportTable("loading", "Loading a plate", _loading(report)),
        ReportTable("codecs", "Ways to keep a field", pd.DataFrame([asdict(row) for row in report.codecs])),
        ReportTable("target2", f"{TARGET2_FIELDS:,} fields of TARGET2, reckoned", pd.DataFrame([report.target2()])),
    ]


def write_ingest_report(folder: Path, report: IngestReport) -> Path:
    """Write CSVs and the page, and return the page."""
    return write_report(
        folder, TITLE, ingest_tables(report), notes=[STAGES, OBVIOUS, LOAD, _reckoned()], facts=ingest_facts(report)
    )


def ingest_facts(report: IngestReport) -> dict[str, str]:
    """Return a description of the machine and the data."""
    return {
        "Fields": f"5 stains of {report.side} x {report.side}, 16 bits, LZW: {report.file_bytes / 1e6:.1f} MB of files",
        "Load before": f"{report.load_before:.1f} running processes",
        "Same result": f"{report.different_share:.2g} of the pixels differ, by {report.largest_difference} of 255",
    }


def as_json(report: IngestReport) -> dict[str, Any]:
    """Return all numbers of a report, the derived ones included."""
    return {
        "facts": ingest_facts(report),
        "load_before": report.load_before,
        "same_result": {
            "different_share": report.different_share,
            "largest_difference": report.largest_difference,
        },
        "times_obvious": list(report.times_obvious),
        "load_over_codec": report.load.over_codec,
        "target2": report.target2(),
        "turns": {
            "ours": [turn.ours for turn in report.stages],
            "codecs": [turn.codecs for turn in report.stages],
            "obvious": list(report.obvious),
            "whole_plate_s": {str(count): list(values) for count, values in report.plates.seconds.items()},
            "load_s": {"codec": report.load.codec, "ours": report.load.ours, "zarr": report.load.zarr},
        },
        "tables": {table.name: table.values.to_dict("records") for table in ingest_tables(report)},
    }


def _reckoned() -> str:
    return (
        f"TARGET2 is reckoned, not measured: {TARGET2_FIELDS:,} fields of this size, {TARGET2_CORES} cores like this "
        f"one kept busy, disks and network that keep up; storage at {USD_PER_GB_MONTH} USD a GB and month. Most of "
        "its fields are of this size or smaller."
    )


def _stages(report: IngestReport) -> pd.DataFrame:
    rows = []
    for stage in (*OURS, "all"):
        seconds = report.ours() if stage == "all" else min(turn.ours[stage] for turn in report.stages)
        rows.append(_row(stage, seconds, report))
    return pd.DataFrame(rows)


def _row(name: str, seconds: float, report: IngestReport) -> dict[str, Any]:
    return {
        "stage": name,
        "ms_a_field": seconds * 1e3,
        "fields_a_second": 1 / seconds,
        "raw_MB_a_second": report.raw_bytes / 1e6 / seconds,
    }


def _compared(report: IngestReport) -> pd.DataFrame:
    ours = report.ours(SAME_WORK)
    seconds = {f"codec: {name}": min(turn.codecs[name] for turn in report.stages) for name in CODECS}
    seconds |= {
        "codecs and disk alone": report.codecs_alone,
        "ours, without statistics": ours,
        "ours, with statistics": report.ours(),
        "the obvious way": report.obvious_seconds,
    }
    rows = [{"what": what, "ms_a_field": spent * 1e3, "over_ours": spent / ours} for what, spent in seconds.items()]
    return pd.DataFrame(rows)


def _plates(report: IngestReport) -> pd.DataFrame:
    fields = report.plates.fields
    return pd.DataFrame(
        [
            {
                "processes": count,
                "fields": fields,
                "seconds": min(values),
                "fields_a_second": fields / min(values),
                "gain": report.plates.gain(count),
                "gain_of_LZW_alone": report.plates.machine_gain(count),
            }
            for count, values in report.plates.seconds.items()
        ]
    )


def _loading(report: IngestReport) -> pd.DataFrame:
    load = report.load
    ways = (
        ("codec alone", load.codec, 1.0),
        ("ours", load.ours, load.over_codec),
        ("zarr", load.zarr, load.zarr_over_codec),
    )
    rows = [
        {
            "way": way,
            "ms_a_field": min(times) / load.fields * 1e3,
            "MB_a_second": load.pixel_bytes / 1e6 / min(times),
            "over_codec": over,
        }
        for way, times, over in ways
    ]
    return pd.DataFrame(rows)
