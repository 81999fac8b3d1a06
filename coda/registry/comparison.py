"""Two releases or two versions side by side: data, parameters, code, gate, alignment, and how far the weights moved."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coda.config.moved import completed
from coda.contracts import ReleaseRecord
from coda.registry.drafts import GATE, PARAMS, read_kept
from coda.registry.package import PACKAGE, PROVENANCE, read_provenance
from coda.registry.versions import Version, download, fetch, version_of
from coda.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

RUN = "run.json"
NOTHING = "-"


@dataclass(frozen=True)
class Side:
    """What is known of one of the two: a release with its pair, or one version alone.

    Attributes:
        name: As the person named it.
        facts: Release, method, source, run, approver, ...; in words.
        models: ``extractor`` and ``head`` -> version; one of them alone for a version.
        data: Batch -> revision and digest, in words.
        params: Parameters of the run; empty where they were not kept.
        gate: The gate's report; empty where there was none.
    """

    name: str
    facts: Mapping[str, str]
    models: Mapping[str, Version]
    data: Mapping[str, str]
    params: Mapping[str, Any]
    gate: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One thing that differs, or that a reader wants side by side."""

    section: str
    name: str
    left: str
    right: str


@dataclass(frozen=True)
class Comparison:
    """Two sides, what differs, and the relative distance of their weights.

    Attributes:
        left: Name of the first side.
        right: Name of the second.
        rows: By section: models, facts, data, parameters, gate.
        weights: ``extractor`` or ``head`` -> block -> ||b - a|| / ||a||; none where the shapes differ.
    """

    left: str
    right: str
    rows: tuple[Row, ...]
    weights: Mapping[str, Mapping[str, float | None]]


def release_side(record: ReleaseRecord, *, settings: Settings) -> Side:
    """Return what is known of a release.

    Raises:
        ConfigError: A version it binds does not exist.
        TransientError: A service does not answer.
    """
    extractor = version_of(record.extractor.name, record.extractor.version, settings=settings)
    head = version_of(record.head.name, record.head.version, settings=settings)
    run = read_kept(record.run_id, RUN, settings=settings)
    made = extractor.tags if extractor.tags.get("run_id") == record.run_id else {}
    facts = {
        "release": record.release_id,
        "source": record.source,
        "method": record.method,
        "alignment": record.alignment,
        "base release": record.base_release or NOTHING,
        "approver": record.approver,
        "gate sentence": record.gate_sentence,
        "code": str(run.get("code_version") or made.get("code_version", NOTHING)),
        "image": str(run.get("image") or made.get("image", NOTHING)),
        "run": record.run_id,
        "created": record.created_at.isoformat(timespec="seconds"),
    }
    data = {f"{d.source}/{d.batch}": f"{d.revision[:12]} {d.digest}" for d in record.data}
    params = read_kept(record.run_id, PARAMS, settings=settings)
    if not params and made:
        params = provenance_of(extractor, settings=settings).get("params", {})
    gate = read_kept(record.run_id, GATE, settings=settings) if record.gate_digest else {}
    return Side(record.release_id, facts, {"extractor": extractor, "head": head}, data, params, gate)


def version_side(version: Version, *, settings: Settings) -> Side:
    """Return what is known of one version.

    Raises:
        IntegrityError: Its record of origin cannot be read.
        TransientError: MLflow does not answer.
    """
    tags = version.tags
    origin = provenance_of(version, settings=settings)
    names = (
        "source",
        "method",
        "alignment",
        "line",
        "base_release",
        "parent_version",
        "code_version",
        "image",
        "run_id",
    )
    facts = {name.replace("_", " "): tags.get(name, NOTHING) for name in names}
    data = {f"{d['source']}/{d['batch']}": f"{d['revision'][:12]} {d['digest']}" for d in origin.get("data", ())}
    name = f"{version.name}/{version.ref.version}"
    return Side(name, facts, {tags["kind"]: version}, data, origin.get("params", {}), origin.get("gate_report") or {})


def provenance_of(version: Version, *, settings: Settings) -> dict[str, Any]:
    """Return the record of where a version comes from, without fetching its weights."""
    with tempfile.TemporaryDirectory() as work:
        download(version, f"{PACKAGE}/{PROVENANCE}", Path(work), settings=settings)
        return read_provenance(Path(work) / PACKAGE)


def compare(left: Side, right: Side, *, settings: Settings) -> Comparison:
    """Compare two sides; the weights of both are fetched and verified, unless they are the same.

    Raises:
        IntegrityError: A model is not the recorded one.
        TransientError: MLflow does not answer.
    """
    rows = [
        *_rows(
            "model", {k: _model(v) for k, v in left.models.items()}, {k: _model(v) for k, v in right.models.items()}
        ),
        *_rows("fact", left.facts, right.facts, only_changes=True),
        *_rows("data", left.data, right.data, only_changes=True),
        *_rows("parameter", _parameters(left), _parameters(right), only_changes=True),
        *_rows("gate", dict(_gate(left.gate)), dict(_gate(right.gate))),
    ]
    weights = {}
    for kind in left.models.keys() & right.models.keys():
        a, b = left.models[kind].ref, right.models[kind].ref
        if a.digest != b.digest:
            with tempfile.TemporaryDirectory() as work:
                folders = [fetch(ref, Path(work) / side, settings=settings) for ref, side in ((a, "a"), (b, "b"))]
                weights[kind] = block_distances(*folders)
    return Comparison(left.name, right.name, tuple(rows), weights)


def block_distances(left: Path, right: Path) -> dict[str, float | None]:
    """Return how far the weights of two model folders are apart, block by block.

    Args:
        left: Model folder; its norm is the unit.
        right: Model folder.

    Returns:
        Block -> ||right - left|| / ||left|| over all its tensors, in the order of the network; none where a tensor is
        missing on one side or has another shape.
    """
    from coda.networks import artifact

    tensors = [artifact.load(folder)[0] for folder in (left, right)]
    blocks: dict[str, list[str]] = {}
    for name in sorted({*tensors[0], *tensors[1]}, key=_place):
        blocks.setdefault(block_of(name), []).append(name)
    return {block: _distance(tensors[0], tensors[1], names) for block, names in blocks.items()}


def block_of(name: str) -> str:
    """Return the block a tensor belongs to: ``block 3`` for ``vit.blocks.3.attn.qkv.weight``, else its first name."""
    match = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
    return f"block {match[1]}" if match else name.removeprefix("vit.").split(".")[0]


def _parameters(side: Side) -> dict[str, str]:
    # a key that only moved, or was added, between two versions of the code is no difference
    return dict(flat(completed(side.params)))


def flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted path and value of every parameter, in the order of the file."""
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _distance(left: "Mapping[str, Tensor]", right: "Mapping[str, Tensor]", names: Sequence[str]) -> float | None:
    moved = norm = 0.0
    for name in names:
        a, b = left.get(name), right.get(name)
        if a is None or b is None or a.shape != b.shape:
            return None
        a, b = a.double(), b.double()
        moved += float(((b - a) ** 2).sum())
        norm += float((a**2).sum())
    return float((moved / norm) ** 0.5) if norm > 0 else (0.0 if moved == 0 else None)


def _place(name: str) -> tuple[int, str]:
    # what comes before the blocks, the blocks by number, what comes after them
    block = block_of(name)
    if block.startswith("block "):
        return int(block.removeprefix("block ")), ""
    early = block in {"cls_token", "pos_embed", "patch_embed", "projector"}
    return (-1 if early else 10**6), block


def _model(version: Version) -> str:
    return f"version {version.ref.version} ({version.ref.digest[:12]})"


def _rows(
    section: str, left: Mapping[str, str], right: Mapping[str, str], *, only_changes: bool = False
) -> Iterator[Row]:
    for name in dict.fromkeys((*left, *right)):
        a, b = left.get(name, NOTHING), right.get(name, NOTHING)
        if not only_changes or a != b:
            yield Row(section, name, a, b)


def _gate(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not report:
        return
    yield "policy", str(report.get("policy_version", NOTHING))
    yield "outcome", f"{report.get('outcome')} ({report.get('chosen')})"
    for item in report.get("candidates", ()):
        if item.get("name") != report.get("chosen"):
            continue
        for name in ("gain", "gain_over_incumbent"):
            if item.get(name):
                yield name.replace("_", " "), _measure(item[name])
        for name, value in item.get("measures", {}).items():
            yield name, _measure(value)


def _measure(value: Mapping[str, Any]) -> str:
    interval = f" [{value['low']:.3f}, {value['high']:.3f}]" if value.get("low") is not None else ""
    return f"{value['value']:.3f}{interval}"
