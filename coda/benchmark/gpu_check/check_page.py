"""The page: tables of what was measured, in Markdown. A figure that was not measured is not there."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from coda.benchmark.gpu_check.check_record import Record
from coda.durable import write_durably

PAGE = "gpu_check.md"
AIM, FIELDS_OF_A_SAMPLE = 3000, 2
"""Samples a second that a large GPU is hoped to take (decision 0012); fields of a sample, an anchor and its partner."""

GIB = 2**30
Row = dict[str, Any]
Table = dict[str, Any]

NOTES = {
    "step": (
        "The whole step: rows, partners, views, both networks, loss, optimizer, teacher, centre. A sample is a pair of "
        "images; its rate is the median over the turns. Utilisation: best turn times the work of a sample "
        "(docs/speed.md), over the best bfloat16 matrix rate. Views share: the step's rate over that of its views "
        "alone, same batch and images. First s: the first step, compilation included."
    ),
    "feed": (
        "Rows, partners and views alone, brought to the device. Decoded per sample: fields read from the plate store "
        "for a sample; 1 GiB of decoded fields is kept, and the file lies in the system's cache."
    ),
    "adaptation": "One plate, from the release's state to the adapted teacher; loop s: its iterations alone.",
    "decode": (
        f"Reading, verifying, decoding and cutting fields of the plate store. Cores for {AIM:,} samples/s: "
        f"{FIELDS_OF_A_SAMPLE} fields a sample, none of them kept from before."
    ),
}


def tables_of(record: Record) -> list[Table]:
    """Return all tables: name, title, note and rows; without those that have no row."""
    tables = [
        ("matrix", "Matrix rate", "", _matrix(record)),
        ("step", "DINO step", NOTES["step"], _steps(record)),
        ("feed", "Views alone, by where images lie", NOTES["feed"], _feeds(record)),
        ("adaptation", "Adaptation of one plate", NOTES["adaptation"], _adaptation(record)),
        ("decode", "Decoding the plate store", NOTES["decode"], _decode(record)),
        ("items", "All measurements", "", _items(record)),
    ]
    return [
        {"name": name, "title": title, "note": note, "rows": rows}
        for name, title, note, found in tables
        if (rows := list(found))
    ]


def write_page(folder: Path, record: Record, tables: Sequence[Table]) -> Path:
    """Write the page and return its path."""
    lines = ["# GPU check", "", *_warnings(record), *_facts(record)]
    for table in tables:
        lines += ["", f"## {table['title']}", "", *_markdown(table["rows"])]
        lines += ["", table["note"]] if table["note"] else []
    return write_durably(folder / PAGE, ("\n".join(lines) + "\n").encode())


def _matrix(record: Record) -> Iterator[Row]:
    rate = record.result("matrix")
    if rate is not None:
        yield {"precision": rate["dtype"], "TFLOP_per_s": rate["flops"] / 1e12, "side": rate["side"]}


def _steps(record: Record) -> Iterator[Row]:
    rate = record.result("matrix")
    for item in record.results("step"):
        step = item["result"]
        row = {key: step[key] for key in ("batch", "images", "compiled", "samples_per_s", "best")}
        row |= {"slowest": min(step["turns"]), "GFLOP_per_sample": step["flops_per_sample"] / 1e9}
        row["utilisation"] = step["best"] * step["flops_per_sample"] / rate["flops"] if rate else None
        feed = record.result(f"feed-{step['images']}")
        alike = feed is not None and feed["batch"] == step["batch"]
        row["views_share"] = step["best"] / feed["best"] if feed is not None and alike else None
        yield row | {"peak_GiB": _gib(item["peaks"], "gpu_bytes"), "first_s": step["first_s"]}


def _feeds(record: Record) -> Iterator[Row]:
    for item in record.results("feed"):
        feed = item["result"]
        row = {key: feed[key] for key in ("images", "batch", "samples_per_s", "best")}
        yield row | {"decoded_per_sample": feed.get("decoded_per_sample")}


def _adaptation(record: Record) -> Iterator[Row]:
    for item in record.results("adaptation"):
        result = item["result"]
        row = {key: result[key] for key in ("fields", "method", "batch", "iterations", "seconds", "loop_s")}
        row |= {"samples_per_s": result["samples_per_s"], "peak_GiB": _gib(item["peaks"], "gpu_bytes")}
        yield row | {"host_peak_GiB": _gib(item["peaks"], "host_bytes")}


def _decode(record: Record) -> Iterator[Row]:
    result, plate = record.result("decode"), record.result("plate")
    if result is None:
        return
    for threads, rate in (
        (1, result["fields_per_s_one_thread"]),
        (result["threads"], result["fields_per_s_all_threads"]),
    ):
        core = rate / threads
        yield {
            "threads": threads, "fields_per_s": rate, "MB_per_s": rate * result["field_bytes"] / 1e6,
            "fields_per_s_a_core": core, f"cores_for_{AIM}_samples_per_s": AIM * FIELDS_OF_A_SAMPLE / core,
            "stored_over_pixels": plate["store_bytes"] / plate["pixel_bytes"] if plate else None,
        }  # fmt: skip


def _items(record: Record) -> Iterator[Row]:
    for name in record.planned:
        item = record.items.get(name, {"state": "not measured", "peaks": {}})
        yield {
            "measurement": name, "state": item["state"],
            "seconds": item.get("seconds"), "budget_s": item.get("budget_s"),
            "peak_GiB": _gib(item["peaks"], "gpu_bytes"), "reserved_GiB": _gib(item["peaks"], "gpu_reserved_bytes"),
            "host_peak_GiB": _gib(item["peaks"], "host_bytes"), "error": item.get("error", ""),
        }  # fmt: skip


def _gib(peaks: dict[str, int | None], name: str) -> float | None:
    found = peaks.get(name)
    return None if found is None else found / GIB


def _warnings(record: Record) -> Iterator[str]:
    if not record.machine["gpu"]:
        yield from ("**Nothing here was measured on a GPU.**", "")
    if record.key["size"] != "full":
        yield from ("**A tiny network on a tiny plate, to see that everything runs: these figures mean nothing.**", "")
    waiting = [name for name in record.planned if not record.measured(name)]
    if waiting:
        yield from (f"Not measured: {', '.join(waiting)}. The same command resumes with them.", "")


def _facts(record: Record) -> Iterator[str]:
    machine = record.machine
    card = machine["gpu"] or "none"
    if machine.get("gpu_bytes"):
        card += f", {machine['gpu_bytes'] / GIB:.1f} GiB, {machine['multiprocessors']} multiprocessors"
    yield f"- GPU: {card}"
    yield f"- Processor: {machine['cpu']}, {machine['cores']} cores; load before: {machine['load']:.1f}"
    yield f"- torch {machine['torch']}, CUDA {machine['cuda'] or 'none'}; code {record.key['code'][:12]}"


def _markdown(rows: Sequence[Row]) -> Iterator[str]:
    names = list(rows[0])
    yield "| " + " | ".join(name.replace("_", " ") for name in names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(_text(row[name]) for name in names) + " |"


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
