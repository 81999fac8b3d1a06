"""Shifts by kind and strength: a laboratory that differs in its optics alone, or in its cells (decision 0052)."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

from annotated_types import Le
from pydantic import Field, ValidationError

from coda.errors import ConfigError, Problem, raise_if_any
from coda.simulation.laboratories import Laboratory, Model

LaboratoryKind = Literal["photometric", "optical", "geometric", "biological"]
LayoutKind = Literal["missing", "dominant", "doses", "moved"]
Kind = Literal["all"] | LaboratoryKind | LayoutKind

STRONGEST_SHIFT = 3.0
"""Strongest shift of a laboratory: beyond it microscopes stop being microscopes."""

PARTS: Mapping[LaboratoryKind, tuple[str, ...]] = {
    "photometric": (
        "camera", "optics.background", "optics.vignetting", "optics.vignetting_offset", "variation.background",
        "variation.well_background",
    ),
    "optical": (
        "optics.psf_sigma_um", "optics.numerical_aperture", "optics.section_um", "optics.haze",
        "optics.haze_sigma_um", "optics.crosstalk", "variation.batch_focus_um", "variation.plate_focus_um",
        "variation.field_focus_um",
    ),
    "geometric": ("optics.pixel_size_um",),
    "biological": (
        "stain_recipe", "biology", "cells_per_mm2", "variation.batch_biology", "variation.plate_biology",
        "variation.well_biology", "variation.batch_staining", "variation.plate_staining", "variation.well_staining",
        "variation.batch_density", "variation.plate_density", "variation.well_density", "variation.edge_effect",
        "variation.gradient", "variation.debris_per_field",
    ),
}  # fmt: skip
"""Kind -> its parameters of a `Laboratory`, by path; a part stands for all below it. Each has one kind."""

LABELS = frozenset(
    {"name", "instrument", "modality", "objective", "file_names", "channel_numbers", "compression"}
)  # fmt: skip
"""What a laboratory is called and how it writes files; no picture depends on it but by the name that draws it."""

WRITTEN = "KIND:STRENGTH, with a plus sign between several"


class Shift(Model):
    """One kind of difference, and how much of it.

    Attributes:
        kind: Parameters of a laboratory ('all' for the four kinds together), or what the wells of its plates hold.
        strength: Of a laboratory's kind: 0 for the source's numbers, 1 for the target's, above 1 beyond it. Of a
            layout: see `coda.simulation.shifted_layouts.laid_out`.
    """

    kind: Kind
    strength: float = Field(ge=0, le=STRONGEST_SHIFT)

    def __str__(self) -> str:
        """Return it as it is written in options."""
        return f"{self.kind}:{self.strength:g}"


Shifts = tuple[Shift, ...]


def read_shifts(text: str, where: str = "--shift") -> Shifts:
    """Return the shifts that a text names: 'optical:1', 'all:1+missing:0.5'.

    Args:
        text: Kinds and strengths; a kind once.
        where: What the text was given as, for messages.

    Raises:
        ConfigError: The text cannot be understood.
    """
    found: list[Shift] = []
    kinds = [name for part in get_args(Kind) for name in (get_args(part) or (part,))]
    for written in text.split("+"):
        kind, _, strength = written.strip().partition(":")
        try:
            found.append(Shift.model_validate({"kind": kind, "strength": float(strength)}))
        except (ValidationError, ValueError):
            expected = f"{WRITTEN}; kinds {', '.join(kinds)}; strengths 0 to {STRONGEST_SHIFT:g}"
            problem = Problem(where, repr(text), expected, f"Write for example {where} optical:1.")
            raise ConfigError("The shift cannot be understood.", [problem]) from None
    problems = [
        Problem(where, repr(text), f"{shift} at most 1: it is a share", f"Write {where} {shift.kind}:1.")
        for shift in found
        if shift.kind in ("missing", "dominant", "moved") and shift.strength > 1
    ]
    if len({shift.kind for shift in found}) < len(found):
        problems.append(Problem(where, repr(text), "each kind once", "Leave out the second."))
    raise_if_any(ConfigError, "The shift cannot be understood.", problems)
    return tuple(found)


def name_of(shifts: Iterable[Shift]) -> str:
    """Return shifts as a part of a source's name: 'all-1-missing-0.5'."""
    return "-".join(f"{shift.kind}-{shift.strength:g}" for shift in shifts)


def shifted(base: Laboratory, target: Laboratory, share: float) -> Laboratory:
    """Return a laboratory on the way from one to another, and beyond: the strength of a domain shift as one number.

    Amounts are blended as logarithms, ``base**(1 - share) * target**share``, effects of the cell stock linearly, and
    so are amounts that are 0 on one side. What passes its valid range stays at its end. Labels (name, microscope, file
    names, channel numbers) are always the target's, so that it is the same source at every strength and its random
    streams are the same ones: batches at two strengths differ in the shift and in nothing else.

    Args:
        base: Laboratory without shift.
        target: Laboratory at share 1.
        share: 0 has the numbers of `base`, 1 is `target`; above 1 extrapolates. 0 to `STRONGEST_SHIFT`.

    Raises:
        ConfigError: The share is out of range.
    """
    if not 0 <= share <= STRONGEST_SHIFT:
        problem = Problem("share", repr(share), f"0 to {STRONGEST_SHIFT:g}", "Choose a strength in this range.")
        raise ConfigError("The laboratories cannot be blended.", [problem])
    return Laboratory.model_validate(_blend(base, target, lambda _: share))


def shifted_by_kind(base: Laboratory, target: Laboratory, shifts: Iterable[Shift]) -> Laboratory:
    """Return `base` with the parameters of some kinds on the way to the target's; see `shifted`.

    Args:
        base: Laboratory without shift.
        target: What each kind has at strength 1, and whose labels the result has.
        shifts: Kinds and strengths; a kind that is named goes before 'all', and what is not named stays. Layouts are
            of plates and change no laboratory.
    """
    strength = {str(shift.kind): shift.strength for shift in shifts}
    rest = strength.get("all", 0.0)

    def share_of(path: str) -> float:
        return strength.get(kind_of(path), rest)

    return Laboratory.model_validate(_blend(base, target, share_of))


def kind_of(path: str) -> LaboratoryKind:
    """Return the kind of a laboratory's parameter, by its path: 'optics.haze'.

    Raises:
        KeyError: It has none.
    """
    for kind, parts in PARTS.items():
        if any(path == part or path.startswith(f"{part}.") for part in parts):
            return kind
    raise KeyError(path)


def _blend(base: Model, target: Model, share_of: Callable[[str], float], above: str = "") -> dict[str, Any]:
    """Return the blended fields of two models of one class, each at the share of its path."""
    blended: dict[str, Any] = {}
    for name, info in type(base).model_fields.items():
        old, new, path = getattr(base, name), getattr(target, name), f"{above}{name}"
        if path in LABELS:
            blended[name] = new
        elif isinstance(new, Model):
            blended[name] = _blend(old, new, share_of, f"{path}.")
        else:
            most = next((float(rule.le) for rule in info.metadata if isinstance(rule, Le)), math.inf)  # type: ignore[arg-type]
            blended[name] = _between(old, new, share_of(path), most)
    return blended


def _between(old: Any, new: Any, share: float, most: float) -> Any:
    """Return the blend of one parameter: a number, one a stain, effects by trait or leaks between channels."""
    # the ends exactly, not up to rounding or order: images at 0 and 1 are the laboratories' own to the last bit
    if share in (0, 1):
        return new if share else old
    if isinstance(new, dict):
        effects = {key: _linear(old.get(key, 0.0), new.get(key, 0.0), share) for key in {**new, **old}}
        return {key: effect for key, effect in effects.items() if effect}
    if isinstance(new, int):
        return min(max(round(_linear(old, new, share)), 8), int(most))
    if isinstance(new, float):
        return min(_amount(old, new, share), most)
    if any(isinstance(value, tuple) for value in (*old, *new)):
        return _leaks(old, new, share)
    return tuple(_amount(a, b, share) for a, b in zip(old, new, strict=True))


def _leaks(
    old: tuple[tuple[str, str, float], ...], new: tuple[tuple[str, str, float], ...], share: float
) -> tuple[tuple[str, str, float], ...]:
    """Return the leaks of both, in the target's order; one that a side lacks is 0 there."""
    before, after = ({(origin, into): leak for origin, into, leak in leaks} for leaks in (old, new))
    pairs = [*after, *(pair for pair in before if pair not in after)]
    leaks = [(*pair, min(_amount(before.get(pair, 0.0), after.get(pair, 0.0), share), 1.0)) for pair in pairs]
    return tuple(leak for leak in leaks if leak[2] > 0)


def _linear(old: float, new: float, share: float) -> float:
    return old + share * (new - old)


def _amount(old: float, new: float, share: float) -> float:
    """Return the blend of two numbers that are not negative, on their logarithms where both are positive."""
    if old <= 0 or new <= 0:
        return max(_linear(old, new, share), 0.0)
    return old if old == new else old * (new / old) ** share
