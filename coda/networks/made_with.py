"""What a network's own folder records of how it is made, beside its crops: what serving must repeat (decision 0015)."""

from typing import Any

from coda.config.params import Params
from coda.networks.runtime import resolve_runtime

HELD_OUT = "held_out"
"""Key of what was held out of the source: the `split` section."""


def made_with(params: Params) -> dict[str, Any]:
    """Return dotted parameter -> value of what tokens depend on beside weights and crops.

    Precision and attention are those that the program chose on this machine where the parameters leave it the choice.

    Raises:
        ConfigError: CUDA is asked for where there is none.
    """
    runtime = resolve_runtime(params.compute)
    return {
        "compute.precision": "float32" if runtime.low_precision is None else "bfloat16",
        "compute.attention": runtime.attention,
        "compute.threads": params.compute.threads,
        HELD_OUT: params.split.model_dump(mode="json"),
    }
