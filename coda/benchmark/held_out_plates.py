"""A user's plates with some held out, which stand for other microscopes too; few compounds become several."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.benchmark.data import Labelled
from coda.benchmark.pixel_shifts import seen_through
from coda.benchmark.specs import Ingested
from coda.contracts.base import digest_of_json
from coda.errors import ConfigError, Problem
from coda.plates.fieldset import FieldSet
from coda.simulation.shifts import Shift
from coda.training.labels import LabelList
from coda.training.split import group_names

HELD_OUT = "held-out"
"""Target of the held-out plates as they are; with a comma and a shift, behind another microscope."""


def target_of(shift: Shift) -> str:
    """Return the name of the held-out plates behind another microscope: 'held-out, optical 1'."""
    return f"{HELD_OUT}, {shift.kind} {shift.strength:g}"


@dataclass(frozen=True)
class ShiftedTargets(Labelled):
    """Labelled fields, some of whose sources are others' fields behind another microscope.

    Attributes:
        shifts: Source -> what is done to its pixels when they are asked for; the others are as they are.
    """

    shifts: Mapping[str, Shift]

    def of(self, source: str) -> FieldSet:
        """Return the fields of one source; shifted pixels are made now, and are the caller's.

        Raises:
            ConfigError: There are none.
        """
        own, shift = super().of(source), self.shifts.get(source)
        if shift is None:
            return own
        return FieldSet(seen_through(own.images, own.table["image_id"].tolist(), shift), own.table, own.channels)


@dataclass(frozen=True)
class HeldOutPlates:
    """Ingested plates whose held-out part is a target, as it is and behind other microscopes.

    Attributes:
        plates: The plates and the label table.
        source: Source that is trained on.
        held_out: Names of its batches or plates that no model learns from.
        shifts: Other microscopes.
        pseudo_compounds: Compounds that each mechanism has at least, by dividing wells; 0 divides none.
    """

    plates: Ingested
    source: str
    held_out: tuple[str, ...]
    shifts: tuple[Shift, ...]
    pseudo_compounds: int

    @property
    def digest(self) -> str:
        """Names the data."""
        shifts = [shift.model_dump(mode="json") for shift in self.shifts]
        return digest_of_json([self.plates.digest, self.source, self.held_out, shifts, self.pseudo_compounds])

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets that the held-out plates stand for."""
        return (HELD_OUT, *(target_of(shift) for shift in self.shifts))

    def load(self) -> ShiftedTargets:
        """Read the data; images are in memory once, whatever stands for them."""
        found = self.plates.load()
        fields = found.fields
        table, labels = divided(fields.table, found.labels, self.pseudo_compounds)
        fields = FieldSet(fields.pool, table, fields.channels, fields.rows)
        away = rows_of(fields.table, self.source, self.held_out)
        parts = [fields.take(~away)]
        for target in self.targets:
            part = fields.take(away)
            parts.append(FieldSet(part.pool, part.table.assign(Metadata_Source=target), part.channels, part.rows))
        places = np.concatenate([np.arange(len(fields.pool)) if part.rows is None else part.rows for part in parts])
        table = pd.concat([part.table for part in parts], ignore_index=True)
        together = FieldSet(fields.pool, table, fields.channels, places.astype(np.intp))
        shifts = dict(zip(self.targets[1:], self.shifts, strict=True))
        return ShiftedTargets(together, labels, found.name, self.digest, shifts)


def rows_of(table: pd.DataFrame, source: str, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which fields of a source belong to these batches or plates."""
    own = table["Metadata_Source"] == source
    named = table["Metadata_Batch"].isin(names) | table["Metadata_Plate"].isin(names)
    return (own & named).to_numpy(bool)


def choose_held_out(table: pd.DataFrame, source: str, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the batches or plates of a source that are held out.

    Args:
        table: Field index.
        source: Source that is trained on.
        asked: Names that were asked for; the last batch by name when there are none, or the last plate of a source of
            one batch.

    Raises:
        ConfigError: There are no such names, or nothing would be left to train on.
    """
    own = table[table["Metadata_Source"] == source]
    batches, plates = (np.unique(own[f"Metadata_{unit}"].to_numpy(str)).tolist() for unit in ("Batch", "Plate"))
    strange = sorted(set(asked) - {*batches, *plates})
    if strange:
        expected = f"batches or plates of {source}: {', '.join([*batches, *plates])}"
        problem = Problem("--hold-out", ", ".join(strange), expected, "Name some of these.")
        raise ConfigError("What is to be held out is not there.", [problem])
    chosen = tuple(asked) or tuple((batches if len(batches) > 1 else plates)[-1:])
    if rows_of(table, source, chosen).sum() == len(own):
        found = f"{', '.join(chosen)}, which is all of {source}"
        remedy = "Hold out fewer, or ingest more plates: one to hold out, and two to train and validate on."
        problem = Problem("--hold-out", found, "at least one more plate", remedy)
        raise ConfigError("Nothing would be left to train on.", [problem])
    return chosen


def divided(table: pd.DataFrame, labels: LabelList, least: int) -> tuple[pd.DataFrame, LabelList]:
    """Divide the wells of compounds into pseudo-compounds, for mechanisms that have too few compounds.

    A well's part follows from its position alone, so it is the same on every plate; parts of one compound differ by at
    most one position.

    Args:
        table: Field index; `Metadata_Compound` and `Metadata_Treatment` of divided wells get ``~1``, ``~2``, ...
        labels: Compound -> mechanism.
        least: Compounds that each mechanism shall have; 0 divides none.

    Returns:
        The table, and the labels of the compounds that it shows; a compound that was not divided keeps its name.
    """
    shown = set(table["Metadata_Compound"])
    present = {name: moa for name, moa in labels.compounds.items() if name in shown}
    named, compounds = table.copy(), dict(present)
    for mechanism in sorted(set(present.values())):
        own = sorted(name for name, moa in present.items() if moa == mechanism)
        if len(own) >= least:
            continue
        parts = math.ceil(least / len(own))
        for compound in own:
            rows = (table["Metadata_Compound"] == compound).to_numpy(bool)
            wells = sorted(set(table.loc[rows, "Metadata_Well"]), key=lambda well: _drawn(compound, well))
            part = {well: f"~{1 + place % parts}" for place, well in enumerate(wells)}
            ending = table.loc[rows, "Metadata_Well"].map(part)
            for column in ("Metadata_Compound", "Metadata_Treatment"):
                named.loc[rows, column] = table.loc[rows, column] + ending
            del compounds[compound]
            compounds |= dict.fromkeys({compound + end for end in part.values()}, mechanism)
    return named, LabelList(dict(sorted(compounds.items())))


def _drawn(compound: str, well: str) -> bytes:
    return hashlib.sha256(f"{compound} {well}".encode()).digest()


def described(table: pd.DataFrame, labels: LabelList) -> dict[str, str]:
    """Return how many plates, fields and compounds of each mechanism there are, for the end of a report."""
    treated = table[table["Metadata_Compound"].isin(list(labels.compounds))]
    moa = treated["Metadata_Compound"].map(dict(labels.compounds))
    counts = treated["Metadata_Compound"].groupby(moa).nunique()
    return {
        "Plates": str(len(np.unique(group_names(table, "plate")))),
        "Fields": f"{len(table)}, {len(treated)} of them labelled",
        "Compounds of each mechanism": "; ".join(f"{name}: {count}" for name, count in counts.items()),
    }
