"""Keys that parameters had before, and where they are now: stored parameters stay readable, files fail (0017)."""

from collections.abc import Mapping
from typing import Any

MOVED: Mapping[str, tuple[str, ...]] = {
    "head.validation_batches": ("split.validation_batches",),
    "adaptation.align_by": ("alignment.by",),
    "adaptation.align_wells": ("alignment.wells",),
    "dino.pool": ("extractor.pool",),
    **{
        f"dino.{name}": (f"pretrain.{name}", f"adaptation.budget.{name}")
        for name in (
            "teacher_temperature", "teacher_temperature_start", "teacher_temperature_warmup_epochs", "ema_start",
            "freeze_last_layer_epochs",
        )
    },
}  # fmt: skip
"""Dotted path before -> dotted paths now, all of which had its value."""

SHARED: Mapping[str, str] = {
    "pretrain.keep_optimizer": "adaptation.carry_optimizer",
    "supervised.plateau_factor": "head.plateau_factor",
}
"""New key -> the key of another section that it was read from before, and that is still there."""

ADDED: Mapping[str, Any] = {
    "split.by": "batch",
    "head.tokens_gib": 1024.0,
    "pretrain.fields": "all",
    "adaptation.fields": "all",
    "adaptation.source_batch_size": None,
}
"""Keys that are new -> what was done before there was a choice; for stored parameters alone."""


def moved(path: str) -> tuple[str, ...]:
    """Return where a key is now; nothing where it never was, or still is."""
    return MOVED.get(path, ())


def as_of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored parameters with their keys where they are now.

    Returns:
        A copy; values that are of today already are returned as they are.
    """
    if not any(found_at(values, path) for path in MOVED):
        return dict(values)
    result: dict[str, Any] = _copied(values)
    for new, old in SHARED.items():
        found = found_at(values, old)
        if found and not found_at(result, new):
            _put(result, new, found[0])
    for old, places in MOVED.items():
        found = found_at(values, old)
        if not found:
            continue
        section, _, name = old.rpartition(".")
        found_at(result, section)[0].pop(name)
        for place in places:
            _put(result, place, found[0])
    return result


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored parameters of today's keys with what they could not say when they were written down."""
    result: dict[str, Any] = _copied(as_of_today(values))
    for path, value in ADDED.items():
        if found_at(result, path.rpartition(".")[0]):
            _put(result, path, value)
    return result


def found_at(values: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """Return the value at a dotted path, in a tuple; an empty one where there is none."""
    current: Any = values
    for key in path.split("."):
        if not isinstance(current, dict) or key not in current:
            return ()
        current = current[key]
    return (current,)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # what is wrong with it is told when it is validated
        values = inner
    values.setdefault(name, value)


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value
