"""Which two fields form a pair: the same treatment, from different batches (paper section 3).

The published layout of a plate set puts a compound into the same well everywhere, so pairs share the well's position
too: edge effects are not removed by pairing, and can even be learned.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from coda.config.params import Pairs
from coda.errors import ConfigError, Problem
from coda.training.randomness import generator

Rows = NDArray[np.intp]

KEPT_EPOCHS = 2
"""Orders of epochs kept at a time: the one at hand, and the next, from which batches are read ahead."""


FEW_PAIRED = 0.5
"""Share of treated fields with a partner of the wanted kind below which a person is told."""


@dataclass(frozen=True)
class PairReport:
    """What the fields allow.

    Attributes:
        anchors: Fields that start a pair at least once in a while: not empty wells, not dropped ones.
        controls: Negative controls among them; an epoch takes at most the capped number.
        fields_per_epoch: Fields of one epoch.
        pairable_share: Share (0..1) of treated fields whose treatment is in another batch (or plate) as well.
        without_partner: Treatments that are in one batch (or plate) only.
        fallbacks: Anchors by what their partner differs in: 'batch', 'plate', 'field' (same plate), or 'itself'.
        by: What partners were asked to differ in; 'none' where single images were asked for.
    """

    anchors: int
    controls: int
    fields_per_epoch: int
    pairable_share: float
    without_partner: tuple[str, ...]
    fallbacks: dict[str, int] = field(default_factory=dict)
    by: Literal["batch", "plate", "none"] = "none"

    def remarks(self) -> list[str]:
        """Return what a person must know of pairs that were asked for and not to be had; nothing where most were."""
        if self.by == "none" or not self.anchors or self.pairable_share >= FEW_PAIRED:
            return []
        share = f"Only {self.pairable_share:.0%}" if self.pairable_share else "None"
        unlike = "batches" if self.by == "batch" else "plates"
        told = (
            f"{share} of the treated fields have a partner of their treatment in another {self.by} among the training "
            f"plates (those held out by split are not). {self.fallbacks.get('itself', 0)} of {self.anchors} fields "
            "were paired with another view of themselves, from which nothing about differences between "
            f"{unlike} is learned."
        )
        return [told]


class PairSampler:
    """Draws anchors and partners by index arithmetic; every draw is set by seed and position alone."""

    def __init__(self, table: pd.DataFrame, pairs: Pairs, anchors: NDArray[np.bool_] | None = None) -> None:
        """Find every field's possible partners once.

        Args:
            table: Field index: treatment, source, batch, plate and pert_type of every field.
            pairs: The policy.
            anchors: Fields that may start a pair; all when not given. Any field may be a partner.

        Raises:
            ConfigError: No field can start a pair, or a treatment has no partner and the policy is 'error'.
        """
        usable = (table["Metadata_pert_type"] != "empty").to_numpy()
        groups = _Groups(table, usable)
        start, stop, skip_start, skip_stop, level = groups.choices(pairs.by)
        if pairs.no_partner == "same_image":
            alone = level != pairs.by
            stop, skip_stop = np.where(alone, start, stop), np.where(alone, skip_start, skip_stop)
            level[alone] = "itself"
        if pairs.by == "none":
            level[:] = "itself"
        wanted = usable if anchors is None else usable & anchors
        wanted, report = _apply_policy(table, pairs, wanted, level)
        self.report = report
        self._order = groups.order
        self._bounds = np.stack([start, stop, skip_start, skip_stop])
        control = (table["Metadata_pert_type"] == "negcon").to_numpy()
        self._treated: Rows = np.flatnonzero(wanted & ~control)
        self._controls: Rows = np.flatnonzero(wanted & control)
        self._itself = pairs.by == "none"
        self._kept: dict[tuple[int, int], Rows] = {}

    @property
    def fields_per_epoch(self) -> int:
        """Anchors of one epoch, controls capped."""
        return self.report.fields_per_epoch

    def epoch(self, seed: int, number: int) -> Rows:
        """Return the anchors of one epoch in random order; controls are drawn anew, up to the cap."""
        source = generator(seed, "anchors", number)
        controls = self._controls
        room = self.fields_per_epoch - len(self._treated)
        if room < len(controls):
            controls = controls[torch.randperm(len(controls), generator=source).numpy()[:room]]
        rows = np.concatenate([self._treated, controls])
        shuffled: Rows = rows[torch.randperm(len(rows), generator=source).numpy()]
        return shuffled

    def batch(self, seed: int, iteration: int, size: int) -> tuple[Rows, Rows]:
        """Return anchors and partners of one iteration.

        Epochs follow each other without a gap, so that no field is left out at an epoch's end.

        Returns:
            Rows of the table, each of shape (size,).
        """
        first, per_epoch = iteration * size, self.fields_per_epoch
        numbers = range(first // per_epoch, (first + size - 1) // per_epoch + 1)
        parts = []
        for number in numbers:
            begin = number * per_epoch
            parts.append(self._kept_epoch(seed, number)[max(first - begin, 0) : first + size - begin])
        anchors: Rows = np.concatenate(parts)
        return anchors, self.partners(anchors, seed, iteration)

    def _kept_epoch(self, seed: int, number: int) -> Rows:
        """Return an epoch's anchors; drawn once while batches follow each other, also where they are read ahead."""
        if (seed, number) not in self._kept:
            while len(self._kept) >= KEPT_EPOCHS:
                del self._kept[next(iter(self._kept))]
            self._kept[seed, number] = self.epoch(seed, number)
        return self._kept[seed, number]

    def partners(self, anchors: Rows, seed: int, iteration: int) -> Rows:
        """Return a partner for each anchor: uniform over all that are allowed, the anchor itself if there is none."""
        if self._itself:
            return anchors
        start, stop, skip_start, skip_stop = self._bounds[:, anchors]
        skipped = skip_stop - skip_start
        allowed = stop - start - skipped
        uniform = torch.rand(len(anchors), generator=generator(seed, "partners", iteration), dtype=torch.float64)
        place = start + np.minimum((uniform.numpy() * allowed).astype(np.intp), np.maximum(allowed - 1, 0))
        place = np.where(place >= skip_start, place + skipped, place)
        found = self._order[np.minimum(place, len(self._order) - 1)]
        result: Rows = np.where(allowed > 0, found, anchors)
        return result


def pairable_share(table: pd.DataFrame, by: str = "batch") -> float:
    """Return the share (0..1) of treated fields whose treatment is in another batch (or plate) as well.

    Negative controls and empty wells do not count: controls are in every batch and would hide that nothing else is.
    """
    rows = table[~table["Metadata_pert_type"].isin(["negcon", "empty"])]
    if rows.empty:
        return 0.0
    unit = _unit(rows, by)
    return float((unit.groupby(rows["Metadata_Treatment"]).transform("nunique") > 1).mean())


class _Groups:
    """Fields ordered by treatment, batch, plate: every group is one run of positions."""

    def __init__(self, table: pd.DataFrame, usable: NDArray[np.bool_]) -> None:
        treatment = np.unique(table["Metadata_Treatment"].to_numpy(str), return_inverse=True)[1]
        treatment = np.where(usable, treatment, -1 - np.arange(len(table)))  # an empty well is nobody's partner
        batch = np.unique(_unit(table, "batch").to_numpy(str), return_inverse=True)[1]
        plate = np.unique(_unit(table, "plate").to_numpy(str), return_inverse=True)[1]
        self.order: Rows = np.lexsort((np.arange(len(table)), plate, batch, treatment))
        keys = np.stack([treatment, batch, plate])[:, self.order]
        self.of_treatment = self._runs(keys[:1])
        self.of_batch = self._runs(keys[:2])
        self.of_plate = self._runs(keys)
        position = np.empty(len(table), dtype=np.intp)
        position[self.order] = np.arange(len(table))
        self.itself = np.stack([position, position + 1])

    def _runs(self, keys: NDArray[np.intp]) -> NDArray[np.intp]:
        """Start and end position of the run of each field, in the table's order; shape (2, fields)."""
        count = keys.shape[1]
        new = np.ones(count, dtype=bool)
        new[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
        starts = np.flatnonzero(new)
        ends = np.append(starts[1:], count)
        run = np.cumsum(new) - 1
        bounds = np.empty((2, count), dtype=np.intp)
        bounds[:, self.order] = np.stack([starts[run], ends[run]])
        return bounds

    def choices(self, by: str) -> tuple[Rows, Rows, Rows, Rows, NDArray[np.str_]]:
        """Range of partners, range that is left out of it, and the level that was possible, for each field."""
        start, stop = self.of_treatment
        total = stop - start
        left_out, level = self.itself.copy(), np.full(len(start), "itself", dtype="<U6")
        wider = [("field", self.itself), ("plate", self.of_plate), ("batch", self.of_batch)]
        for name, own in wider[: 2 if by == "plate" else 3]:
            possible = total > own[1] - own[0]
            left_out = np.where(possible, own, left_out)
            level[possible] = name
        return start, stop, left_out[0], left_out[1], level


def _unit(table: pd.DataFrame, by: str) -> "pd.Series[str]":
    unit = table["Metadata_Source"] + "/" + table["Metadata_Batch"]
    return unit + "/" + table["Metadata_Plate"] if by == "plate" else unit


def _apply_policy(
    table: pd.DataFrame, pairs: Pairs, wanted: NDArray[np.bool_], level: NDArray[np.str_]
) -> tuple[NDArray[np.bool_], PairReport]:
    needed = pairs.by
    alone = wanted & (level != needed) if needed != "none" else np.zeros_like(wanted)
    names = tuple(sorted(set(table["Metadata_Treatment"][alone])))
    if names and pairs.no_partner == "error":
        remedy = "Add batches that hold it, or choose another pairs.no_partner (other_plate, same_image, drop)."
        found, expected = f"one {needed} only", f"more than one {needed}"
        problems = [Problem(f"treatment {name}", found, expected, remedy) for name in names]
        raise ConfigError(f"{len(names)} treatment(s) have no partner in another {needed}.", problems)
    if pairs.no_partner == "drop":
        wanted = wanted & ~alone
    control = (table["Metadata_pert_type"] == "negcon").to_numpy()
    treated, controls = int((wanted & ~control).sum()), int((wanted & control).sum())
    share = pairs.control_share
    room = controls if share >= 1 or not treated else min(controls, int(treated * share / (1 - share)))
    if treated + room == 0:
        remedy = "Add wells with treatments, or change pairs.no_partner or pairs.control_share."
        raise ConfigError("No field can be trained on.", [Problem("pairs", "no anchor", "at least one", remedy)])
    fallbacks = {kind: int((level[wanted] == kind).sum()) for kind in ("batch", "plate", "field", "itself")}
    by = needed if needed != "none" else "batch"
    paired = pairable_share(table, by)
    report = PairReport(treated + controls, controls, treated + room, paired, names, fallbacks, needed)
    return wanted, report
