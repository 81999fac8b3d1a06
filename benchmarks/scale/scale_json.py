"""All numbers of `coda benchmark scale`, for programs."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.scale.scale_verdicts import as_rows, growth_of, verdicts_of
from benchmarks.scale.small_plates import design_of
from coda.steps.record import code_version


def as_json(rows: Sequence[dict[str, Any]], parts: Mapping[str, Any], field_px: int) -> dict[str, Any]:
    """Return sizes, growth and verdicts, with what they were measured on.

    Args:
        rows: Figures of the sizes, smallest first, all after the same number of earlier batches.
        parts: What was measured besides.
        field_px: Side of the images, in pixels.

    Returns:
        ``facts``, ``sizes`` (bytes are bytes, seconds seconds), ``growth`` (`growth_of`), ``parts`` and ``verdicts``.
    """
    design = design_of(field_px)
    facts = {
        "code": code_version(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load": os.getloadavg()[0],
        "field_px": field_px,
        "wells": design.mechanisms * design.compounds_per_mechanism + design.negcon_wells + design.poscon_wells,
        "sites_per_well": design.sites_per_well,
    }
    return {
        "facts": facts,
        "sizes": list(rows),
        "growth": growth_of(rows),
        "parts": dict(parts),
        "verdicts": as_rows(verdicts_of(rows)),
    }
