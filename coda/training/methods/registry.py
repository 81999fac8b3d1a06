"""The methods of self-supervision by their names, and stored states by their kinds."""

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from coda.config.params import Ssl
from coda.errors import ConfigError, Problem
from coda.networks import artifact
from coda.training.methods.base import MethodState, SslMethod

NAMES: tuple[str, ...] = get_args(Ssl.model_fields["method"].annotation)
"""Values of `ssl.method`; the folders beside this module have the same names."""


def method_of(name: str) -> SslMethod[Any]:
    """Return the method of a name in `NAMES`; it is imported when it is first asked for."""
    method: SslMethod[Any] = import_module(f"coda.training.methods.{name}.method").METHOD
    return method


def all_methods() -> Iterator[SslMethod[Any]]:
    """Yield every method."""
    return (method_of(name) for name in NAMES)


def load_state(folder: Path, expected_digest: str | None = None) -> MethodState:
    """Verify a model folder and rebuild the state in it, whichever method it belongs to.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones, or describe no network of ours.
        ConfigError: It holds no state of a method.
    """
    method = _by_kind().get(_claimed_kind(folder))
    if method is None:
        raise _another_kind(artifact.load(folder, expected_digest)[1], folder)
    state: MethodState = method.load_state(folder, expected_digest)
    return state


def require_state(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a model folder that holds no state of a method.

    Raises:
        ConfigError: It holds another kind of network.
    """
    if config.get("kind") not in _by_kind():
        raise _another_kind(config, folder)


def _by_kind() -> dict[Any, SslMethod[Any]]:
    return {method.kind: method for method in all_methods()}


def _another_kind(config: Mapping[str, Any], folder: Path) -> ConfigError:
    expected = f"a state that adaptation continues from ({', '.join(_by_kind())})"
    remedy = "Give the folder `state` of a pretraining."
    problem = Problem(str(folder), f"kind {config.get('kind')!r}", expected, remedy)
    return ConfigError("This is another kind of model.", [problem])


def _claimed_kind(folder: Path) -> Any:
    """Return the kind that a folder claims, unverified: it only chooses which method verifies every byte."""
    try:
        config = json.loads((folder / artifact.CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return config.get("kind") if isinstance(config, dict) else None
