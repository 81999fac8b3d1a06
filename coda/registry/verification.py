"""Whether the registry holds what was recorded: bytes, pairs, gate reports, signatures, tags and aliases."""

import tempfile
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path

from coda.contracts import ModelRef, ReleaseRecord
from coda.contracts.base import digest_of_json
from coda.errors import CodaError, ConfigError, ContractError, IntegrityError, Problem
from coda.registry import signing
from coda.registry.drafts import GATE, read_kept
from coda.registry.mirror import drift
from coda.registry.package import FILES, MODEL, PACKAGE, STATE, changed_files, read_provenance
from coda.registry.pair import verify_release
from coda.registry.releases import ReleaseLog
from coda.registry.versions import Version, describe, download, list_versions
from coda.settings import Settings


@dataclass(frozen=True)
class Verification:
    """What was verified, and what is wrong.

    Attributes:
        serving: Scope -> release that serves it.
        versions: Registered versions that were fetched whole.
        problems: What is not as it was recorded.
        aliases: MLflow aliases that do not say what the release log says.
    """

    serving: dict[str, str]
    versions: int
    problems: tuple[Problem, ...]
    aliases: tuple[Problem, ...]


def verify_registry(*, settings: Settings, everything: bool = False) -> Verification:
    """Verify all that serves, or all that is registered, without changing anything.

    Args:
        settings: Where the services are.
        everything: Also every release that ever served, and every file, tag and signature of every version.

    Raises:
        TransientError: A service does not answer.
    """
    log = ReleaseLog(settings)
    problems: list[Problem] = []
    serving: dict[str, str] = {}
    releases: dict[str, ReleaseRecord] = {}
    for scope in log.scopes():
        try:
            entries = log.history(scope)
        except (IntegrityError, ContractError) as error:
            problems += error.problems
            continue
        serving[scope] = entries[-1].release.release_id
        for entry in entries if everything else entries[-1:]:
            releases[entry.release.digest()] = entry.release
    current = set(serving.values())
    versions = list_versions(settings) if everything else []
    known = {version.ref for version in versions}
    for record in releases.values():
        problems += _release_problems(record, settings, known, fetched=record.release_id in current)
    for version in versions:
        problems += verify_version(version, settings=settings)
    return Verification(serving, len(versions), tuple(dict.fromkeys(problems)), tuple(drift(settings=settings)))


def verify_version(version: Version, *, settings: Settings) -> list[Problem]:
    """Fetch a version whole and return what is not as it was registered; a signature counts where a key asks for one.

    Args:
        version: The version.
        settings: Where MLflow is, and the key that must have signed.

    Raises:
        TransientError: MLflow does not answer.
    """
    from coda.networks import artifact

    where = f"{version.name} version {version.ref.version}"
    with tempfile.TemporaryDirectory() as work:
        folder = download(version, "", Path(work), settings=settings)
        if folder is None or not (folder / PACKAGE).is_dir():
            return [Problem(where, "no files", "the files of the version", "Restore its artifacts.")]
        package = folder / PACKAGE
        problems = []
        if "files_digest" in version.tags:  # versions registered by earlier releases of this program have none
            problems += changed_files(folder, version.tags["files_digest"], where)
            problems += _changed_tags(version, package, where)
        digests = {MODEL: version.ref.digest}
        if "state_digest" in version.tags:
            digests[STATE] = version.tags["state_digest"]
        for part, digest in digests.items():
            try:
                artifact.load(package / part, digest)
            except IntegrityError as error:
                problems += [replace(p, where=p.where.replace(str(folder), where)) for p in error.problems]
        if settings.verify_key is not None:
            problems += _signatures(package, [*digests, FILES], settings.verify_key, where)
    return problems


def _release_problems(
    record: ReleaseRecord, settings: Settings, known: Set[ModelRef], *, fetched: bool
) -> Iterator[Problem]:
    try:
        if fetched:
            verify_release(record, settings=settings)
        else:
            # what the listing holds under this name, number and digest need not be asked for; MLflow says what is wrong
            for ref in dict.fromkeys((record.extractor, record.head, *record.heads)):
                if ref not in known:
                    describe(ref, settings=settings)
        report = read_kept(record.run_id, GATE, settings=settings) if record.gate_digest else {}
    except (IntegrityError, ConfigError) as error:
        yield from _named(error, record)
        return
    if report and digest_of_json(report) != record.gate_digest:
        remedy = "Find out who changed the report; the release was decided on another one."
        where = f"release {record.release_id}: runs/{record.run_id}/{GATE}"
        yield Problem(where, f"digest {digest_of_json(report)}", f"digest {record.gate_digest}", remedy)


def _named(error: CodaError, record: ReleaseRecord) -> Iterator[Problem]:
    for problem in error.problems:
        yield replace(problem, where=f"release {record.release_id}: {problem.where}")


def _changed_tags(version: Version, package: Path, where: str) -> Iterator[Problem]:
    """Yield a problem for each tag that says something else than the record beside the weights."""
    try:
        facts = read_provenance(package)
    except IntegrityError as error:
        yield from error.problems
        return
    remedy = "Set the tag back in MLflow, and find out who changed it: the record is the truth."
    for name, value in facts.items():
        tag = version.tags.get(name)
        if isinstance(value, str | int | float) and value != "" and str(value)[: len(tag or "")] != tag:
            yield Problem(f"{where}: tag {name}", repr(tag), repr(value), remedy)


def _signatures(package: Path, parts: list[str], key: str, where: str) -> Iterator[Problem]:
    for part in parts:
        try:
            signing.require_signature(package / part, package / f"{part}{signing.SUFFIX}", key, f"{where}/{part}")
        except IntegrityError as error:
            yield from error.problems
