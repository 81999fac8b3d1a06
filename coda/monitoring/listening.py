"""Listening on an address: IPv4, IPv6 or a name, with one wording for what cannot be listened on."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from coda.errors import ConfigError, Problem


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of an address to listen on: '::' and '::1' are IPv6, and a name is what it resolves to first.

    Raises:
        OSError: Nothing here has this name.
    """
    found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0]


def address(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def listening(what: str, host: str, port: int, option: str = "") -> Iterator[None]:
    """Turn what binding a port raises into the operator's error.

    Args:
        what: What listens, as the beginning of a sentence: "The trigger".
        host: Address to listen on.
        port: Port.
        option: Beginning of the options that say where, for the remedy: '' or 'webhook-'.

    Raises:
        ConfigError: The port is taken, may not be used or is none; the address is none of this machine's.
    """
    try:
        yield
    except (OSError, OverflowError, UnicodeError) as error:
        found = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        if not 0 <= port <= 65535:
            found = "port must be 0-65535"  # as Python words it for some of them; the resolver has other words
        remedy = f"Choose others with --{option}host and --{option}port; port 0 takes a free one."
        problem = Problem(address(host, port), found, "an address of this machine, and a port that is free", remedy)
        raise ConfigError(f"{what} cannot listen on {address(host, port)}: {found}.", [problem]) from error
