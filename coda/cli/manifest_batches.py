"""`coda manifest build` over all batches of one or several sources of JUMP, as far as they are wanted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console

from coda.cli.manifest_build import Wish, build_one, for_batch, images_are_read, write_absent
from coda.errors import CodaError, ConfigError, ContractError, Problem, TransientError, raise_if_any
from coda.plates.jump.selection import PlateFilter, Source, source_of
from coda.plates.manifests.digests import KeptDigests
from coda.plates.manifests.draft import AbsentImage
from coda.plates.manifests.places import Place
from coda.plates.readers.assemble import Identity
from coda.settings import Settings
from coda.storage.named_places import below, place_at


def places_of(prefix: str, sources: Sequence[str], settings: Settings) -> dict[str, Place]:
    """Return where each source lies: one lies at the prefix itself, several lie in folders of their names below it.

    Raises:
        ConfigError: A folder is not there.
    """
    if len(sources) == 1:
        return {sources[0]: place_at(prefix, settings)}
    return {source: place_at(below(prefix, source), settings) for source in sources}


def wanted_plates(
    wish: Wish, places: dict[str, Place], chosen: PlateFilter, batches: Sequence[str]
) -> dict[str, dict[str, frozenset[str]]]:
    """Return source -> batch -> plates to describe.

    Raises:
        ConfigError: Nothing is wanted, or a batch, plate, type or pattern is asked for that no source has.
        ContractError: The tables lack a source.
        TransientError: The storage is away.
    """
    if chosen.types and wish.tables is None:
        remedy = "Give the folder metadata/ of JUMP's datasets repository (--jump-tables)."
        problem = Problem("--plate-type", ", ".join(chosen.types), "the tables that know types of plates", remedy)
        raise ConfigError("Nobody says which plate is of which type.", [problem])
    sources = [source_of(name, place, wish.tables) for name, place in places.items()]
    _require_batches(sources, batches)
    every = {plate: kind for source in sources for plate, kind in source.plates.items()}
    chosen.require_used(every, ", ".join(places))
    found = {source.name: source.wanted(chosen, batches) for source in sources}
    empty = [
        Problem(name, "no plate that is asked for", "at least one", "Leave the source out, or ask for less.")
        for name, its in found.items()
        if not its
    ]
    raise_if_any(ConfigError, "There is nothing to describe.", empty)
    return found


def _require_batches(sources: Sequence[Source], batches: Sequence[str]) -> None:
    known = sorted({batch for source in sources for batch in source.batches})
    unknown = [batch for batch in batches if batch not in known]
    problems = [
        Problem("--jump-batch", batch, f"one of {', '.join(known[:40]) or 'none'}", "Correct the name.")
        for batch in unknown
    ]
    raise_if_any(ConfigError, "There is no such batch.", problems)


def build_batches(
    wish: Wish, places: dict[str, Place], wanted: dict[str, dict[str, frozenset[str]]], out: str, work: Path,
    absent: Path | None, settings: Settings, console: Console,
) -> None:  # fmt: skip
    """Write ``OUT/<source>/<batch>/manifest.json`` for every batch; one that cannot be described loses no other.

    Raises:
        ConfigError: Batches failed, all of them for what the command line says.
        ContractError: Batches failed; with all problems of all of them.
        TransientError: The storage is away; what was written stays, and the same call resumes.
    """
    outcomes: Counter[str] = Counter()
    failed: dict[str, CodaError] = {}
    lacking: list[tuple[Identity, AbsentImage]] = []
    total = sum(map(len, wanted.values()))
    for source, batches in wanted.items():
        with KeptDigests(work, places[source].where) as kept:
            for batch, plates in batches.items():
                done = sum(outcomes.values()) + len(failed)
                typer.echo(f"[{done + 1} of {total}] {source}/{batch}: {len(plates)} plate(s) wanted.")
                one = for_batch(wish, source, batch, plates)
                target = place_at(below(below(out, source), batch), settings, new=True)
                its: list[AbsentImage] = []
                try:
                    outcome, _ = build_one(one, places[source], target, kept, console, absent=its)
                    outcomes[outcome] += 1
                except TransientError:
                    raise
                except CodaError as error:
                    failed[f"{source}/{batch}"] = error
                    typer.echo(f"Not written: {error.message}")
                lacking += [(one.identity, item) for item in its]
    if absent is not None:
        write_absent(absent, lacking, several=True)
    parts = [f"{count} {outcome}" for outcome, count in outcomes.items()]
    parts += [f"{len(failed)} failed"] if failed else []
    typer.echo(f"{total} batch(es) of {len(wanted)} source(s): {', '.join(parts)}.")
    for place in places.values():
        images_are_read(place.where, settings, console)
    if sum(outcomes.values()) and not wish.dry_run:
        console.print(f"All of them: coda step ingest --manifest {out} --out DATASET", soft_wrap=True)
    if failed:
        raise _failure(failed, total)


def _failure(failed: dict[str, CodaError], total: int) -> CodaError:
    problems = [
        replace(problem, where=f"{batch}: {problem.where}")
        for batch, error in failed.items()
        for problem in error.problems or (Problem(batch, error.message, "a batch that can be described", "See above."),)
    ]
    kind = ConfigError if all(isinstance(error, ConfigError) for error in failed.values()) else ContractError
    return kind(f"{len(failed)} of {total} batches could not be described; the others are written.", problems)
