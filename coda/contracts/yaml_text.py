"""YAML that people write: whatever is wrong with it is an error with its place."""

from typing import Any

import yaml

from coda.errors import ConfigError, Problem


def parse_yaml(text: str, where: str, message: str, *, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Return what a YAML text holds.

    Args:
        text: The text.
        where: Its file or option, for the message.
        message: What could not be done, as a sentence.
        loader: Kind of loader; a safe one.

    Raises:
        ConfigError: It is no YAML; or holds a date or a number that cannot be, or brackets nested by the
            thousand, which YAML's own errors do not cover.
    """
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        found = " ".join(str(error).split())[:300]
        problem = Problem(where, found, "YAML", "Correct it at this place; quote what is meant as text.")
        raise ConfigError(message, [problem]) from error
