"""The plan of an experiment: compounds with hidden mechanisms, doses, and one plate layout for all laboratories."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from coda.contracts.fields import PertType
from coda.errors import ConfigError, Problem, raise_if_any
from coda.simulation.laboratories import Model, Positive, Spread
from coda.simulation.mechanisms import MECHANISMS, POSITIVE_CONTROL, mechanism_vectors
from coda.simulation.seeds import stream
from coda.simulation.traits import STEPS, TRAITS, effect_vector

PLATE_SHAPES = {24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24)}
"""Wells of a plate -> rows and columns."""

NEGATIVE_CONTROL = "DMSO"


class Design(Model):
    """What is laid out on a plate and how strong things are; the defaults are the demo's."""

    mechanisms: int = Field(default=8, ge=2, le=len(MECHANISMS), description="Mechanisms of action, the first ones.")
    compounds_per_mechanism: int = Field(default=3, ge=1, le=50)
    doses_um: tuple[Positive, ...] = Field(default=(5.0,), min_length=1, description="Doses of every compound.")
    wells_per_treatment: int = Field(default=1, ge=1, le=20)
    negcon_wells: int = Field(default=8, ge=0, le=200)
    poscon_wells: int = Field(default=2, ge=0, le=200)
    plate_wells: Literal[24, 48, 96, 384] = 48
    sites_per_well: int = Field(default=2, ge=1, le=16)
    field_px: int = Field(default=256, ge=32, le=4096, description="Edge of a raw field in pixels, after binning.")
    binning: int = Field(default=2, ge=1, le=8, description="Camera binning: multiplies the pixel size.")
    effect_strength: Spread = Field(default=1.0, description="Factor on every mechanism's effects.")
    off_target: Spread = Field(default=0.7, description="Size of each compound's own side effects, in steps.")
    cell_heterogeneity: Spread = Field(default=1.0, description="Factor on cell-to-cell variation.")
    batch_strength: Spread = Field(default=1.0, description="Factor on all batch, plate and well nuisance.")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a plate."""
        return PLATE_SHAPES[self.plate_wells]


class Compound(Model):
    """One chemical. Its mechanism is the hidden truth: it leaves this object only through `write_labels`."""

    name: str
    pert_type: PertType
    mechanism: str | None = Field(description="Hidden truth; none for controls.")
    strength: Spread = Field(description="Factor on the mechanism's effects at a saturating dose.")
    ec50_um: Positive = Field(description="Dose of half the effect.")
    hill: Positive = Field(description="Steepness of the dose response.")
    off_target: tuple[float, ...] = Field(description="The compound's own side effects, one a trait, on its scale.")

    def effects(self, dose_um: float) -> NDArray[np.float64]:
        """Return the effect of a dose on the traits' scales, shape (traits,).

        The dose response is Hill's: ``dose**hill / (dose**hill + ec50**hill)``.
        """
        if self.pert_type == "negcon" or dose_um <= 0:
            return np.zeros(len(TRAITS))
        on_target = effect_vector(POSITIVE_CONTROL if self.mechanism is None else MECHANISMS[self.mechanism])
        share = dose_um**self.hill / (dose_um**self.hill + self.ec50_um**self.hill)
        effects: NDArray[np.float64] = share * (self.strength * on_target + np.asarray(self.off_target))
        return effects


class WellPlan(Model):
    """What one well of every plate holds."""

    well: str
    row: int
    column: int
    pert_type: PertType
    compound: str = Field(description="Empty for an empty well.")
    treatment: str = Field(description="Compound and dose as one name; empty for an empty well.")
    dose_um: float | None


class Experiment(Model):
    """Compounds and layout shared by all laboratories, batches and plates."""

    seed: int
    design: Design
    compounds: tuple[Compound, ...]
    layout: tuple[WellPlan, ...] = Field(description="Every well of the plate, by row and column.")

    def compound(self, name: str) -> Compound:
        """Return a compound by name."""
        return next(compound for compound in self.compounds if compound.name == name)

    def imaged_wells(self) -> tuple[WellPlan, ...]:
        """Return the wells that are imaged: all but the empty ones."""
        return tuple(well for well in self.layout if well.pert_type != "empty")


def plan_experiment(seed: int, design: Design) -> Experiment:
    """Draw compounds and lay out the plate.

    Compounds get code names in random order, so that neither name nor position tells the mechanism. As on JUMP's
    TARGET2 plates, every plate of every laboratory has the same layout; treated wells and controls fill the inner
    wells first and the left-over wells of the edge stay empty.

    Args:
        seed: Seed of everything that follows, 0 or more.
        design: Numbers of compounds, controls, wells and fields.

    Raises:
        ConfigError: The seed is negative, or the design needs more wells than the plate has.

    Example:
        >>> experiment = plan_experiment(0, Design())
        >>> [well.well for well in experiment.layout][:2]
        ['A01', 'A02']
    """
    if seed < 0:
        problem = Problem("seed", str(seed), "0 or more", "Choose another seed.")
        raise ConfigError("The experiment cannot be planned.", [problem])
    compounds = _draw_compounds(seed, design)
    treated = [compound for compound in compounds if compound.pert_type == "trt"]
    wells: list[tuple[PertType, str, float]] = [
        ("trt", compound.name, dose)
        for compound in treated
        for dose in design.doses_um
        for _ in range(design.wells_per_treatment)
    ]
    top_dose = max(design.doses_um)
    wells += [("negcon", NEGATIVE_CONTROL, 0.0)] * design.negcon_wells
    wells += [("poscon", _poscon_name(compounds), top_dose)] * design.poscon_wells
    if len(wells) > design.plate_wells:
        problem = Problem(
            "design",
            f"{len(wells)} wells for {len(treated)} compounds and the controls",
            f"at most {design.plate_wells} wells",
            "Use a larger plate, or fewer compounds, doses, replicates or controls.",
        )
        raise ConfigError("The design does not fit on the plate.", [problem])
    return Experiment(seed=seed, design=design, compounds=compounds, layout=_lay_out(seed, design, wells))


def write_labels(experiment: Experiment, path: Path) -> Path:
    """Write the truth as a user's label table: CSV with columns Metadata_Compound and moa, controls absent."""
    rows = [f"{compound.name},{compound.mechanism}" for compound in experiment.compounds if compound.pert_type == "trt"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["Metadata_Compound,moa", *rows]) + "\n", encoding="utf-8")
    return path


def holding(experiment: Experiment, wells: Mapping[str, str | None]) -> Experiment:
    """Return an experiment whose plates hold other things: classes become missing or frequent.

    Args:
        experiment: The experiment as it was planned.
        wells: Mechanism or compound -> what its wells hold instead: another mechanism or compound, or nothing.

    Raises:
        ConfigError: A mechanism or compound is named that the experiment does not have.
    """
    treated = [compound for compound in experiment.compounds if compound.pert_type == "trt"]
    known = {compound.name for compound in treated} | {str(compound.mechanism) for compound in treated}
    named = {*wells, *(value for value in wells.values() if value is not None)}
    raise_if_any(
        ConfigError,
        "The plates cannot be simulated as planned.",
        [
            Problem("wells", repr(name), "a mechanism or compound of the design", "Correct the plan.")
            for name in sorted(named - known)
        ],
    )
    layout = tuple(_holding(experiment, well, wells) for well in experiment.layout)
    return experiment.model_copy(update={"layout": layout})


def _holding(experiment: Experiment, well: WellPlan, wells: Mapping[str, str | None]) -> WellPlan:
    if well.pert_type == "empty":
        return well
    compound = experiment.compound(well.compound)
    place = wells.get(compound.name, wells.get(compound.mechanism or "", compound.name))
    if place is None:
        return _plan_well((well.row, well.column), None)
    held = _held(experiment, compound, place)
    if held is compound:
        return well
    return well.model_copy(update={"compound": held.name, "treatment": f"{held.name}_{well.dose_um:g}uM"})


def _held(experiment: Experiment, compound: Compound, place: str) -> Compound:
    """Return the compound of that name, or the one of that mechanism at the same place among its like."""
    if any(other.name == place for other in experiment.compounds):
        return experiment.compound(place)
    own = [other.name for other in experiment.compounds if other.mechanism == compound.mechanism]
    others = [other for other in experiment.compounds if other.mechanism == place]
    return others[own.index(compound.name) % len(others)]


def well_name(row: int, column: int) -> str:
    """Return the name of a well by its 0-based row and column: (1, 2) is 'B03'."""
    return f"{chr(ord('A') + row)}{column + 1:02d}"


def _poscon_name(compounds: tuple[Compound, ...]) -> str:
    return next(compound.name for compound in compounds if compound.pert_type == "poscon")


def _draw_compounds(seed: int, design: Design) -> tuple[Compound, ...]:
    """Return all compounds in order of their code names, controls last."""
    rng = stream(seed, "compounds")
    count = design.mechanisms * design.compounds_per_mechanism
    codes = rng.choice(np.arange(1000, 10000), size=count + 1, replace=False)
    compounds = []
    for position, mechanism in enumerate(mechanism_vectors(design.mechanisms)):
        for number in range(design.compounds_per_mechanism):
            code = int(codes[position * design.compounds_per_mechanism + number])
            compounds.append(_draw_compound(f"CPD-{code}", mechanism, design, rng))
    compounds.sort(key=lambda compound: compound.name)
    nothing = (0.0,) * len(TRAITS)
    poscon = Compound(
        name=f"CPD-{int(codes[-1])}", pert_type="poscon", mechanism=None, strength=design.effect_strength,
        ec50_um=0.1, hill=1.0, off_target=nothing,
    )  # fmt: skip
    negcon = Compound(
        name=NEGATIVE_CONTROL, pert_type="negcon", mechanism=None, strength=0.0, ec50_um=1.0, hill=1.0,
        off_target=nothing,
    )  # fmt: skip
    return (*compounds, poscon, negcon)


def _draw_compound(name: str, mechanism: str, design: Design, rng: np.random.Generator) -> Compound:
    touched = rng.random(len(TRAITS)) < 0.4
    off_target = design.off_target * STEPS * rng.standard_normal(len(TRAITS)) * touched
    return Compound(
        name=name,
        pert_type="trt",
        mechanism=mechanism,
        strength=design.effect_strength * float(rng.uniform(0.65, 1.25)),
        ec50_um=float(np.exp(rng.normal(np.log(0.6), 0.5))),
        hill=float(rng.uniform(0.9, 1.6)),
        off_target=tuple(float(value) for value in off_target),
    )


def _lay_out(seed: int, design: Design, wells: list[tuple[PertType, str, float]]) -> tuple[WellPlan, ...]:
    rows, columns = design.shape
    positions = [(row, column) for row in range(rows) for column in range(columns)]
    rng = stream(seed, "layout")
    order = rng.permutation(len(positions))
    inner_first = sorted(order, key=lambda index: _on_edge(positions[index], design))
    chosen = rng.permutation(inner_first[: len(wells)])
    content = {positions[index]: well for index, well in zip(chosen, wells, strict=True)}
    return tuple(_plan_well(position, content.get(position)) for position in positions)


def _on_edge(position: tuple[int, int], design: Design) -> bool:
    rows, columns = design.shape
    return position[0] in (0, rows - 1) or position[1] in (0, columns - 1)


def _plan_well(position: tuple[int, int], content: tuple[PertType, str, float] | None) -> WellPlan:
    row, column = position
    name = well_name(row, column)
    if content is None:
        return WellPlan(
            well=name, row=row, column=column, pert_type="empty", compound="", treatment="", dose_um=None
        )  # fmt: skip
    pert_type, compound, dose = content
    treatment = compound if pert_type == "negcon" else f"{compound}_{dose:g}uM"
    return WellPlan(
        well=name, row=row, column=column, pert_type=pert_type, compound=compound, treatment=treatment, dose_um=dose
    )  # fmt: skip
