"""Whether an extractor and a head belong together, judged on their verified files and on the registry's record."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from coda.config.recorded import AUTOMATIC, TRAINED
from coda.contracts import ReleaseRecord
from coda.errors import ConfigError, Problem, raise_if_any
from coda.registry.package import read_config, require_kind
from coda.registry.versions import Version, describe, fetch_described
from coda.settings import Settings

_REMEDY = (
    "Choose a head that was trained on this line of extractors: `coda registry list --versions` shows the line of each."
)


def verify_release(record: ReleaseRecord, *, settings: Settings) -> None:
    """Fetch both models of a release, verify every byte, and check that they belong together.

    Raises:
        IntegrityError: A file is not the recorded one; named.
        ConfigError: A version does not exist, or extractor and head do not fit; every reason at once.
        TransientError: MLflow does not answer.
    """
    refs = dict.fromkeys((record.extractor, record.head, *record.heads))
    known = {ref: describe(ref, settings=settings) for ref in refs}
    extractor, head = known[record.extractor], known[record.head]
    with tempfile.TemporaryDirectory() as work:
        extractor_config = _config(extractor, "extractor", Path(work) / "extractor", settings)
        head_config = _config(head, "head", Path(work) / "head", settings)
        problems = _statistics(record, Path(work) / "head")
    problems += mismatches(extractor_config, head_config, record.alignment)
    problems += _lines(extractor, head)
    raise_if_any(ConfigError, f"Release {record.release_id} binds models that do not belong together.", problems)


def mismatches(extractor: dict[str, Any], head: dict[str, Any], alignment: str) -> list[Problem]:
    """Return every reason why a head cannot read an extractor's tokens.

    Args:
        extractor: Config of the extractor, with ``width``.
        head: Config of the head, with ``width``.
        alignment: What the release does to the tokens between them.
    """
    problems = []
    # a head on profiles reads no token: only the fields must be those of its line
    for name, what in (("width", "tokens of width"), ("channels", "stains"))["reads" in head :]:
        if extractor[name] != head[name]:
            problems.append(Problem(f"head: {name}", f"{what} {head[name]}", f"{what} {extractor[name]}", _REMEDY))
    for name in ("centre", "global_size", "normalise", "eval_grid"):
        one, other = head.get("crops", {}).get(name), extractor.get("crops", {}).get(name)
        if one != other:
            problems.append(Problem(f"head: crops.{name}", repr(one), repr(other), _REMEDY))
    mine, theirs = head.get(TRAINED) or {}, extractor.get(TRAINED) or {}
    problems += [
        Problem(f"head: {path}", repr(mine[path]), repr(theirs[path]), _REMEDY)
        for path in AUTOMATIC
        if path in mine and path in theirs and mine[path] != theirs[path]
    ]
    trained = "standardise" if alignment == "standardise" else "none"
    if head["alignment"] != trained:
        remedy = f"Choose the head of alignment {trained!r}, or release with alignment {head['alignment']!r}."
        found = f"a head trained on tokens of alignment {head['alignment']!r}"
        problems.append(Problem(f"release: alignment {alignment!r}", found, f"one of alignment {trained!r}", remedy))
    return problems


def _lines(extractor: Version, head: Version) -> list[Problem]:
    mine, theirs = head.tags.get("line"), extractor.tags.get("line")
    if mine == theirs:
        return []
    where = f"head version {head.ref.version}: line"
    return [Problem(where, f"trained on extractors of line {mine}", f"line {theirs}", _REMEDY)]


def _statistics(record: ReleaseRecord, head: Path) -> list[Problem]:
    if record.statistics_digest is None:
        return []
    file = head / "source_statistics.safetensors"
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no such file"
    if found == record.statistics_digest:
        return []
    remedy = "Choose the head whose statistics the release names."
    return [Problem(f"head: {file.name}", found, f"digest {record.statistics_digest}", remedy)]


def _config(version: Version, kind: str, folder: Path, settings: Settings) -> dict[str, Any]:
    fetch_described(version, folder, settings=settings)
    config = read_config(folder)
    require_kind(config, kind, folder)
    return config
