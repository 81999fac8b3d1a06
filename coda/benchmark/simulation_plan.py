"""What a benchmark simulates: sources, batches and plates, how strong the shift is, and which wells hold what."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from coda.config.params import Ingest, Params
from coda.contracts.base import Part, Slug
from coda.contracts.channels import STAINS, ChannelNames
from coda.errors import ConfigError, Problem
from coda.simulation.design import Compound, Design, Experiment, WellPlan, holding
from coda.simulation.laboratories import Laboratory, find_laboratory
from coda.simulation.shifted_layouts import laid_out
from coda.simulation.shifts import Shift

DEMO_BATCHES = {"lab_a": 5, "lab_b": 3, "lab_c": 3}
"""Batches of the demo's laboratories: enough to hold one out of `lab_a`, and to pair in the others."""


class SourcePlan(Part):
    """One source of a simulated benchmark."""

    name: Slug = Field(description="What it is called in the tables (`Metadata_Source`).")
    laboratory: Laboratory = Field(description="Its microscope and habits, built-in or changed by the caller.")
    batches: int = Field(ge=1, le=99)
    plates: int = Field(default=2, ge=1, le=20, description="Plates of each batch.")
    wells: dict[str, str | None] = Field(
        default_factory=dict,
        description="Mechanism or compound -> what its wells hold instead on this source's plates: another mechanism "
        "or compound, or nothing (not imaged). That makes plates on which classes are missing or frequent.",
    )
    layout: tuple[Shift, ...] = Field(
        default=(), description="Shifts of the layout of its plates; those of laboratories are in `laboratory`."
    )

    def batch_names(self) -> tuple[str, ...]:
        """Return the names of its batches, in an order that is also alphabetical."""
        digits = len(str(self.batches))
        return tuple(f"b{number:0{digits}d}" for number in range(1, self.batches + 1))

    def plate_names(self, batch: str) -> tuple[str, ...]:
        """Return the names of a batch's plates."""
        return tuple(f"{self.laboratory.name}_{batch}_p{number}" for number in range(1, self.plates + 1))


class SimulationPlan(Part):
    """All that a simulated data set depends on, beside its seed."""

    sources: tuple[SourcePlan, ...] = Field(min_length=1)
    design: Design = Field(default_factory=Design)
    ingest: Ingest = Field(description="How raw images become 8 bits: as the ingest step does it.")
    channels: ChannelNames = Field(description="Stains that are kept, in this order; simulated fields have the five.")
    centre: int = Field(ge=1, description="Side of the square that is kept of every field, in stored pixels.")


def simulation_plan(
    params: Params,
    batches: Mapping[str, int] | None = None,
    *,
    plates: int = 2,
    laboratories: Mapping[str, Laboratory] | None = None,
    wells: Mapping[str, Mapping[str, str | None]] | None = None,
    layouts: Mapping[str, tuple[Shift, ...]] | None = None,
    design: Mapping[str, Any] | None = None,
) -> SimulationPlan:
    """Return the plan of a simulated data set that is processed as these parameters say.

    Args:
        params: Sections `ingest`, `extractor.channels` and `crops.centre`.
        batches: Source -> number of batches; the demo's experiment when not given.
        plates: Plates of each batch.
        laboratories: Source -> laboratory, for sources that are not the built-in one of their name.
        wells: Source -> what its wells hold instead; see `SourcePlan`.
        layouts: Source -> shifts of its layout.
        design: Fields of the `Design` that differ from the demo's.

    Raises:
        ConfigError: A source is neither built in nor among the laboratories that were given; or the extractor reads a
            channel that simulated fields do not have.
    """
    strange = [name for name in params.extractor.channels if name not in STAINS]
    if strange:
        remedy = "Set extractor.channels to some of them, or benchmark on plates of your own."
        problem = Problem("extractor.channels", ", ".join(strange), f"channels among {', '.join(STAINS)}", remedy)
        raise ConfigError("Simulated fields have the five Cell Painting stains.", [problem])
    given, changed = dict(laboratories or {}), dict(wells or {})
    sources = tuple(
        SourcePlan(
            name=name,
            laboratory=given.get(name) or find_laboratory(name),
            batches=number,
            plates=plates,
            wells=dict(changed.get(name, {})),
            layout=(layouts or {}).get(name, ()),
        )
        for name, number in (batches or DEMO_BATCHES).items()
    )
    return SimulationPlan(
        sources=sources,
        design=Design.model_validate(dict(design or {})),
        ingest=params.ingest,
        channels=params.extractor.channels,
        centre=params.crops.centre,
    )


def imaged_wells(experiment: Experiment, source: SourcePlan) -> list[tuple[WellPlan, Compound]]:
    """Return the wells that are imaged on a source's plates, each with what it holds there.

    Raises:
        ConfigError: The plan names a mechanism or compound that the experiment does not have.
    """
    held = holding(laid_out(experiment, source.layout), source.wells)
    return [(plan, held.compound(plan.compound)) for plan in held.imaged_wells()]
