"""The environment of the embedded services: chosen, not inherited.

What a person's shell says of their own cloud, registry and metrics must not reach a demo: neither would their profile
open the embedded store, nor should a demo's figures arrive in their Pushgateway.
"""

import os
import shlex
from collections.abc import Mapping

from coda.settings import VARIABLES

FAMILIES = ("AWS", "MLFLOW", "DVC")
"""Beginnings of variables, before the underscore, that libraries below this project read by themselves."""


def choose(environment: Mapping[str, str]) -> None:
    """Give this process, and so all it starts, exactly these settings: those it inherited are removed.

    Args:
        environment: Variables of the services; every other variable of a setting or of `FAMILIES` goes.
    """
    for name in [name for name in os.environ if _is_setting(name)]:
        del os.environ[name]
    os.environ.update(environment)


def script(environment: Mapping[str, str]) -> str:
    """Return lines for a POSIX shell that do the same there, whatever is in the values."""
    others = "|".join(name for name in VARIABLES.values() if not name.startswith(tuple(f"{it}_" for it in FAMILIES)))
    names = f"({'|'.join(FAMILIES)})_[A-Za-z0-9_]*|{others}"
    forget = f"for name in $(env | sed -nE 's/^({names})=.*/\\1/p'); do unset \"$name\"; done"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    return "\n".join([forget, *lines]) + "\n"


def _is_setting(name: str) -> bool:
    return name in VARIABLES.values() or name.startswith(tuple(f"{family}_" for family in FAMILIES))
