"""Shifts of layout: what the wells of a target's plates hold when it is not what the source's hold (decision 0052)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from coda.simulation.design import Compound, Experiment, WellPlan, holding
from coda.simulation.seeds import stream
from coda.simulation.shifts import Shift


def laid_out(experiment: Experiment, shifts: Iterable[Shift]) -> Experiment:
    """Return an experiment with other things in its wells; compounds, their names and the number of wells stay.

    Which mechanisms are missing or dominant and which wells trade places is drawn from the experiment's seed alone: the
    same in every laboratory, and at a greater strength what was chosen at a smaller one stays chosen.

    Args:
        experiment: As it was planned.
        shifts: ``missing``: share of the mechanisms whose wells hold the other mechanisms, in turns; one always stays.
            ``dominant``: share of the treated wells that hold one mechanism, taken from the others alike; below its
            usual share nothing changes. ``doses``: powers of ten by which treated wells get less. ``moved``: share of
            all wells, empty ones among them, that trade their contents at random. What is not named stays; kinds of
            laboratories are none of it.
    """
    strength = {shift.kind: shift.strength for shift in shifts}
    order = _mechanisms(experiment)
    stay = len(order) - min(round(strength.get("missing", 0.0) * len(order)), len(order) - 1)
    left = order[:stay]
    changed = holding(experiment, {name: left[place % stay] for place, name in enumerate(order[stay:])})
    changed = _dominated(changed, left, strength.get("dominant", 0.0))
    changed = _diluted(changed, strength.get("doses", 0.0))
    return _moved(changed, strength.get("moved", 0.0))


def _mechanisms(experiment: Experiment) -> list[str]:
    """Return the mechanisms in random order: the first is the one that may dominate, the last ones may be missing."""
    names = sorted({compound.mechanism for compound in experiment.compounds if compound.mechanism is not None})
    return [names[place] for place in stream(experiment.seed, "layout shift").permutation(len(names))]


def _dominated(experiment: Experiment, left: Sequence[str], share: float) -> Experiment:
    """Return an experiment in which the first mechanism holds this share of the treated wells, a half rounded up."""
    wells = defaultdict(list)
    for well in (well for well in experiment.layout if well.pert_type == "trt"):
        wells[str(experiment.compound(well.compound).mechanism)].append(well)
    treated = sum(map(len, wells.values()))
    wanted = max(int(share * treated + 0.5) - len(wells[left[0]]), 0)
    # the first well of each of the other mechanisms, then the second: so that the others stay alike
    turns = sorted(
        ((place, order, well) for order, name in enumerate(left[1:]) for place, well in enumerate(wells[name])),
        key=lambda it: it[:2],
    )
    compounds = [compound for compound in experiment.compounds if compound.mechanism == left[0]]
    taken = {
        well.well: _with(well, compounds[place % len(compounds)]) for place, (*_, well) in enumerate(turns[:wanted])
    }
    return _with_layout(experiment, [taken.get(well.well, well) for well in experiment.layout])


def _with(well: WellPlan, compound: Compound) -> WellPlan:
    return well.model_copy(update={"compound": compound.name, "treatment": f"{compound.name}_{well.dose_um:g}uM"})


def _diluted(experiment: Experiment, powers: float) -> Experiment:
    return _with_layout(experiment, [_with_less(well, powers) if powers else well for well in experiment.layout])


def _with_less(well: WellPlan, powers: float) -> WellPlan:
    if well.pert_type != "trt" or well.dose_um is None:
        return well
    dose = float(f"{well.dose_um * 10**-powers:.4g}")  # as names tell it
    return well.model_copy(update={"dose_um": dose, "treatment": f"{well.compound}_{dose:g}uM"})


def _moved(experiment: Experiment, share: float) -> Experiment:
    """Return an experiment in which chosen wells pass their contents on in a circle: each gets another's."""
    layout = list(experiment.layout)
    order = stream(experiment.seed, "layout shift", "moved").permutation(len(layout))
    places = order[: round(share * len(layout))]
    for place, origin in zip(places, np.roll(places, 1), strict=True):
        well, content = experiment.layout[place], experiment.layout[origin]
        layout[place] = content.model_copy(update={"well": well.well, "row": well.row, "column": well.column})
    return _with_layout(experiment, layout)


def _with_layout(experiment: Experiment, layout: Iterable[WellPlan]) -> Experiment:
    return experiment.model_copy(update={"layout": tuple(layout)})
