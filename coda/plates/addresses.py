"""Addresses of files as tables write them: paths of any system, `file:` addresses, keys of object storage.

One parser for all of them. A key of object storage may hold any letter, so nothing in it is taken for a query, a
fragment or an escape unless the literal key is not there.
"""

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote, unquote_plus

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>/+)(?P<rest>.*)", re.DOTALL)
"""A scheme has two letters or more: one letter and a colon is a drive."""

_WEB = ("http", "https")

Parts = tuple[str, ...]


def spellings(address: str) -> Mapping[str, Parts]:
    """Return what an address may mean, the likeliest first: name of the spelling -> folders and file name.

    `literal` takes it as it stands, `decoded` resolves percent escapes, `form` also reads a plus sign as a blank. In
    `file:` addresses escapes are the rule, elsewhere the exception.
    """
    found = _SCHEME.fullmatch(address)
    if found is None:
        return {"literal": _parts(address)}
    scheme, rest = found["scheme"].lower(), found["rest"]
    if scheme in _WEB:
        rest = rest.partition("?")[0]
    read: dict[str, Callable[[str], str]] = {"literal": str, "decoded": unquote, "form": unquote_plus}
    order = ("decoded", "literal") if scheme == "file" else ("literal", "decoded", "form")
    result: dict[str, Parts] = {}
    for name in order:
        parts = _parts(read[name](rest))
        if parts not in result.values():
            result[name] = parts
    return result


def _parts(text: str) -> Parts:
    return tuple(part for part in text.replace("\\", "/").split("/") if part not in {"", "."})
