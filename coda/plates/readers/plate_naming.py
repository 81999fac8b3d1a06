"""Plates by the names that laboratories give them: no two become one, and each is found by its own name."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.readers.listing import PlateListing, safe_name
from coda.plates.readers.read_options import ReadOptions, plain

UNNAMED = "unnamed"


def named(where: str, plates: Sequence[PlateListing], options: ReadOptions) -> list[PlateListing]:
    """Return the wanted plates under names that are safe in paths.

    Args:
        where: The tree, for messages.
        plates: All plates of the tree, as readers call them.
        options: Names that the user gives or asks for, and the acquisition.

    Raises:
        ConfigError: The user names a plate or an acquisition that is not there, or a name that is not safe.
        ContractError: Two plates would have one name, or one plate was measured several times.
    """
    _check_renames(where, plates, options)
    called = [_called(plate, options) for plate in plates]
    wanted = [plate for plate in called if options.takes(plate.plate) or options.takes(plate.raw)]
    known = {name for plate in called for name in (plate.plate, plate.raw)}
    unknown = sorted(options.plates - known)
    unknown += [pattern for pattern in options.patterns if not any(fnmatchcase(name, pattern) for name in known)]
    if unknown:
        names = ", ".join(plain(name) for name in sorted({plate.raw for plate in called})[:20])
        problem = Problem("plates", ", ".join(map(plain, unknown)), f"plates among {names}", "Correct the name.")
        raise ConfigError(f"{where} has no such plate.", [problem])
    wanted = _of_one_measurement(where, wanted, options)
    groups: dict[str, list[PlateListing]] = defaultdict(list)
    for plate in wanted:
        groups[plate.plate].append(plate)
    problems = [_collision(where, name, some) for name, some in sorted(groups.items()) if len(some) > 1]
    raise_if_any(ContractError, f"{where} cannot be imported.", problems)
    return wanted


def _called(plate: PlateListing, options: ReadOptions) -> PlateListing:
    raw = plate.plate
    name = options.renames.get(raw) or safe_name(raw)
    notes = plate.notes if name == raw else (*plate.notes, f"the laboratory calls it {plain(raw)!r}")
    return replace(plate, plate=name, raw=raw, notes=notes)


def _check_renames(where: str, plates: Sequence[PlateListing], options: ReadOptions) -> None:
    known = {plate.plate for plate in plates}
    listed = ", ".join(map(plain, sorted(known)[:20]))
    problems = [
        Problem("--rename", plain(old), f"plates among {listed}", "Correct the name.")
        for old in options.renames
        if old not in known
    ]
    problems += [
        Problem("--rename", plain(new), "letters, digits and ._- alone", f"For example {safe_name(new)}.")
        for new in options.renames.values()
        if safe_name(new) != new
    ]
    raise_if_any(ConfigError, f"Plates of {where} cannot be renamed.", problems)


def _of_one_measurement(where: str, plates: list[PlateListing], options: ReadOptions) -> list[PlateListing]:
    """Return the plates of the chosen acquisition, where that is a measurement."""
    wish = options.acquisition
    if wish is None or any(wish in plate.acquisitions for plate in plates):
        return plates
    fitting = [plate for plate in plates if plate.measurement == wish]
    if not fitting:
        names = sorted({name for plate in plates for name in (*plate.acquisitions, plate.measurement) if name})
        listed = ", ".join(map(plain, names[:20])) or "none in this tree"
        problem = Problem("--acquisition", plain(wish), f"acquisitions among {listed}", "Correct the name.")
        raise ConfigError(f"{where} has no such acquisition.", [problem])
    return fitting


def _collision(where: str, name: str, plates: Sequence[PlateListing]) -> Problem:
    raws = list(dict.fromkeys(plate.raw for plate in plates))
    if len(raws) > 1:
        stem = "" if name == UNNAMED else f"{name}-"
        remedy = " ".join(f"--rename {plain(raw) + '=' + stem + str(k)!r}" for k, raw in enumerate(raws[:4], start=1))
        found = f"the plates {' and '.join(repr(plain(raw)) for raw in raws[:10])}, which would both be called {name}"
        return Problem(where, found, "names that stay apart", f"Give them names: {remedy}.")
    measurements = [plate.measurement for plate in plates if plate.measurement]
    found = f"{len(plates)} plates of the name {plain(raws[0])}"
    if len(set(measurements)) == len(plates):
        found += f" (the measurements {', '.join(map(plain, measurements[:10]))})"
        remedy = f"Choose the one that counts (--acquisition {plain(measurements[0])!r})."
        return Problem(where, found, "each plate once", remedy)
    remedy = "Import the folder of one measurement alone, or give the plates other names."
    return Problem(where, found, "each plate once", remedy)
