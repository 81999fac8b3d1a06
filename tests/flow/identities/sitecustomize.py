"""Gives every step that KFP starts here an access key of its own, named after the step, as a cluster's secrets do."""

import os
import runpy
import sys
from collections.abc import Callable
from typing import Any

STEP = "--function_to_execute"


def named_after_its_step(arguments: list[str]) -> None:
    if STEP in arguments:
        os.environ["AWS_ACCESS_KEY_ID"] = arguments[arguments.index(STEP) + 1]


def in_forks(run_module: Callable[..., Any]) -> Callable[..., Any]:
    """A fork of the warm worker learns only when it becomes a program which one it is."""

    def run(*arguments: Any, **options: Any) -> Any:
        named_after_its_step(sys.argv)
        return run_module(*arguments, **options)

    return run


if "CODA_TEST_IDENTITIES" in os.environ:
    named_after_its_step(sys.orig_argv)
    runpy.run_module = in_forks(runpy.run_module)
