"""JUMP-Target-2: which JCP2022 id is which compound, by the positions on a plate and not by chemistry.

Standardisation changed the structures' keys between releases, so that joining by key loses a third of the compounds; a
plate's wells and the map it was made by agree well for well.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from coda.errors import Problem
from coda.plates.jump.consortium_tables import EMPTY, UNKNOWN
from coda.plates.layout import parse_well

COMPOUND = "Metadata_Compound"

_REMEDY = "Check that the wells are of a plate that was made by this map, and that neither table was shifted."


@dataclass(frozen=True)
class PositionJoin:
    """What came of a join.

    Attributes:
        table: A row for each JCP2022 id, by id: `Metadata_Compound`, `broad_sample`, `InChIKey`, `pert_iname`; where
            several samples or names are one compound, they are joined by '|'.
        conflicts: Ids that would be two compounds, or compounds that would be two ids; their rows are not in the table.
        unmatched: Filled wells of the plates that the map or the metadata lack.
        replaced: Well with the sample that the map has there -> plates on which it holds the solvent alone; some
            plates were made so.
        wells: Wells that were joined.
    """

    table: pd.DataFrame
    conflicts: tuple[Problem, ...]
    unmatched: tuple[str, ...]
    replaced: Mapping[str, int]
    wells: int


def join_by_position(
    plates: Iterable[Mapping[str, str]], platemap: Mapping[str, str], metadata: pd.DataFrame
) -> PositionJoin:
    """Join the wells of plates with the map that they were made by.

    Args:
        plates: For each plate, well -> JCP2022 id.
        platemap: Well -> broad_sample; empty where the well holds the solvent alone.
        metadata: Columns `broad_sample`, `InChIKey`, `pert_iname` and `control_type`; the row of the negative control
            stands for wells without a sample.

    Returns:
        The join; ids and InChIKeys in its table are one to one.
    """
    samples = _by_place(platemap)
    compounds, solvent = _compounds(metadata)
    filled = [
        (well, parse_well(well), jcp) for plate in plates for well, jcp in plate.items()
        if jcp not in UNKNOWN and jcp != EMPTY
    ]  # fmt: skip
    alone = Counter(jcp for _, place, jcp in filled if place is not None and samples.get(place) == "")
    solvent_id = alone.most_common(1)[0][0] if alone else ""
    pairs: dict[str, Counter[str]] = defaultdict(Counter)
    used: dict[str, set[str]] = defaultdict(set)
    unmatched: set[str] = set()
    replaced: Counter[str] = Counter()
    for well, place, jcp in filled:
        sample = samples.get(place) if place is not None else None
        key = solvent if sample == "" else compounds.get(sample or "", (None, ""))[0]
        if sample and jcp == solvent_id:
            replaced[f"{well} (for {sample})"] += 1
        elif key is None:
            unmatched.add(f"{well} ({jcp})")
        else:
            pairs[jcp][key] += 1
            used[jcp].add(sample or "")
    conflicts = _conflicts(pairs)
    bad = {jcp for jcp, keys in pairs.items() if len(keys) > 1} | {
        jcp for jcps in _by_key(pairs).values() if len(jcps) > 1 for jcp in jcps
    }
    rows = [
        (jcp, _joined(sample for sample in used[jcp]), next(iter(pairs[jcp])),
         _joined(compounds[sample][1] if sample else _solvent_name(metadata) for sample in used[jcp]))
        for jcp in sorted(pairs) if jcp not in bad
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=[COMPOUND, "broad_sample", "InChIKey", "pert_iname"], dtype=str)
    wells = sum(sum(keys.values()) for keys in pairs.values())
    return PositionJoin(table, conflicts, tuple(sorted(unmatched)), dict(sorted(replaced.items())), wells)


def _by_place(platemap: Mapping[str, str]) -> dict[tuple[int, int], str]:
    places = ((parse_well(well), sample) for well, sample in platemap.items())
    return {place: sample for place, sample in places if place is not None}


def _compounds(metadata: pd.DataFrame) -> tuple[dict[str, tuple[str, str]], str | None]:
    """Return sample -> (InChIKey, name), and the InChIKey of the negative control."""
    rows = metadata[["broad_sample", "InChIKey", "pert_iname"]].itertuples(index=False)
    known = {str(sample): (str(key), str(name)) for sample, key, name in rows if sample and key}
    negatives = set(metadata.loc[metadata["control_type"].str.startswith("negcon"), "InChIKey"])
    return known, negatives.pop() if len(negatives) == 1 else None


def _solvent_name(metadata: pd.DataFrame) -> str:
    return str(metadata.loc[metadata["control_type"].str.startswith("negcon"), "pert_iname"].iloc[0])


def _by_key(pairs: Mapping[str, Mapping[str, int]]) -> dict[str, list[str]]:
    by_key: dict[str, list[str]] = defaultdict(list)
    for jcp, keys in pairs.items():
        for key in keys:
            by_key[key].append(jcp)
    return by_key


def _conflicts(pairs: Mapping[str, Mapping[str, int]]) -> tuple[Problem, ...]:
    problems = [
        Problem(jcp, " and ".join(f"{key} in {n} wells" for key, n in sorted(keys.items())), "one compound", _REMEDY)
        for jcp, keys in sorted(pairs.items()) if len(keys) > 1
    ]  # fmt: skip
    problems += [
        Problem(key, " and ".join(sorted(jcps)), "one id", _REMEDY)
        for key, jcps in sorted(_by_key(pairs).items()) if len(jcps) > 1
    ]  # fmt: skip
    return tuple(problems)


def _joined(texts: Iterable[str]) -> str:
    return "|".join(sorted({text for text in texts if text}))
