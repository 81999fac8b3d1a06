"""What serving reads: all of it from the model's record, but for where and on what the arithmetic runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from coda.config.params import Compute, Crops, Params
from coda.config.recorded import VIEWS, Facts, Today, told
from coda.errors import ConfigError, Problem

OF_TODAY = ("device", "threads", "images")
"""Keys of the `compute` section that serving reads from today's parameters: where and on what, never what."""

LEAST = "predict.min_top_over_chance"

NEEDED = ("compute.precision", "compute.attention", "alignment.by", "alignment.wells", LEAST)
"""What serving needs beside the crops, which every model folder tells."""


class Views(Protocol):
    """What it takes to run a network over fields. `Params` is one, and so is `Serving`."""

    @property
    def crops(self) -> Crops:
        """The views that are cut."""

    @property
    def compute(self) -> Compute:
        """Where, and how exactly."""


class HasGroups(Protocol):
    """The groups of fields that an alignment is fitted on."""

    @property
    def by(self) -> Literal["batch", "plate"]:
        """Group that token statistics are fitted on."""

    @property
    def wells(self) -> Literal["all", "negcon"]:
        """Wells they are fitted on."""


class ServedAs(Views, Protocol):
    """What it takes to serve a release. `Params` is one, for a model that is made in the same run; so is `Serving`."""

    @property
    def alignment(self) -> HasGroups:
        """The groups that alignments are fitted on."""


@dataclass(frozen=True)
class Groups:
    """The groups of fields that an alignment is fitted on."""

    by: Literal["batch", "plate"]
    wells: Literal["all", "negcon"]


@dataclass(frozen=True)
class Serving:
    """How a released model is served.

    Attributes:
        crops: The views it was trained with.
        compute: Precision and attention of the record; device, threads and place of the images (`OF_TODAY`) of today.
            Threads that nobody states are those of the record: with their number sums are rounded.
        alignment: The groups that its alignment is fitted on.
        min_top_over_chance: Below it, a prediction is marked as too uncertain to rely on; None where nothing is marked.
        notes: What no record tells, and what was taken for it.
    """

    crops: Crops
    compute: Compute
    alignment: Groups
    min_top_over_chance: float | None
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """What is needed beside the crops (`NEEDED`), by dotted path."""
        return {
            "compute.precision": self.compute.precision,
            "compute.attention": self.compute.attention,
            "alignment.by": self.alignment.by,
            "alignment.wells": self.alignment.wells,
            LEAST: self.min_top_over_chance,
        }

    @classmethod
    def of(cls, crops: Mapping[str, Any], facts: Facts, today: Today, needed: Sequence[str] = NEEDED) -> "Serving":
        """Return how a model is served.

        Args:
            crops: The `crops` section that the model's folder records.
            facts: Everything that its records tell.
            today: Today's parameters; of their values only `OF_TODAY` are used, and those that a person states where
                no record tells them.
            needed: What must be known beside the crops; `NEEDED`, or all of it but `LEAST`.

        Raises:
            ConfigError: A stated value contradicts a record, or what is needed is neither recorded nor stated.
        """
        values, notes = told(facts, today, needed)
        now = today.params.compute
        threads, habit = now.threads, facts.get("compute.threads")
        if habit is not None and today.origin("compute.threads") is None:
            threads = int(habit.value)
        compute = Compute(
            device=now.device, threads=threads, images=now.images, precision=values["compute.precision"],
            attention=values["compute.attention"], compile=False, processes=1,
        )  # fmt: skip
        groups = Groups(values["alignment.by"], values["alignment.wells"])
        return cls(recorded_crops(crops), compute, groups, values.get(LEAST), tuple(notes))


def recorded_crops(crops: Mapping[str, Any]) -> Crops:
    """Return the crops that a model folder records.

    Raises:
        ConfigError: The folder records none that can be used.
    """
    absent = [name for name in VIEWS if name not in crops]
    try:
        if not absent:
            return Crops.model_validate(dict(crops))
        found = f"no {', '.join(absent)}"
    except ValueError as error:
        found = " ".join(str(error).split())[:200]
    problem = Problem("config.json: crops", found, "the crops it was trained with", "Train the model again.")
    raise ConfigError("A model does not say what views it was trained with.", [problem])


def groups_of(params: Params) -> dict[str, Any]:
    """Return the facts about alignments that a head or a folder of candidates records."""
    return {"alignment.by": params.alignment.by, "alignment.wells": params.alignment.wells}
