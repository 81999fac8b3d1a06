"""What a source's state has fixed, held against the parameters that it is adapted with."""

from collections.abc import Mapping
from typing import Any

from coda.errors import ConfigError, Problem, raise_if_any


def refuse_other_than(fixed: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse parameters that contradict what a state has fixed: they would be ignored.

    Args:
        fixed: Dotted parameter -> the state's value, and what is asked for.

    Raises:
        ConfigError: Some do; all of them together.
    """
    problems = [
        Problem(name, repr(asked), f"{kept!r}, as the release was pretrained", f"Set {name}={kept}, or pretrain anew.")
        for name, (kept, asked) in fixed.items()
        if kept != asked
    ]
    raise_if_any(ConfigError, "The parameters contradict the source release that adaptation continues from.", problems)
