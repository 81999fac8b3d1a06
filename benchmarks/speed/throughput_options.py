"""Options of `coda benchmark speed`."""

from collections.abc import Sequence
from pathlib import Path

from coda.cli.options import read_params
from coda.config import Params
from coda.errors import ConfigError, Problem

SCALES = ("demo", "deit-small")
ON_A_CPU = ("pretrain.batch_size=8", "compute.precision=bfloat16", "compute.threads=2")
"""What the paper's network needs on a CPU, where a batch of 128 would take a minute."""


def read_scales(scales: Sequence[str], params: Path, overlay: list[Path], changes: list[str]) -> dict[str, Params]:
    """Return the parameters of each scale that was asked for.

    Raises:
        ConfigError: A scale is unknown, or the parameters are not valid.
    """
    unknown = [name for name in scales if name not in SCALES]
    if unknown:
        problem = Problem("--scale", ", ".join(unknown), f"some of {', '.join(SCALES)}", "Name a scale.")
        raise ConfigError("There is no such scale.", [problem])
    import torch

    found = {}
    for name in dict.fromkeys(scales):
        if name == "demo":
            found[name] = read_params(params, [params.parent / "params" / "demo.yaml", *overlay], changes)
        else:
            size = [] if torch.cuda.is_available() else list(ON_A_CPU)
            found[name] = read_params(params, overlay, ["extractor.weights=random", *size, *changes])
    return found
