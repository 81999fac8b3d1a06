"""Matching many names against one regular expression, as a program of its own that can be stopped.

A regular expression can be written (by accident, too) that takes longer than the age of the world on a name of forty
letters, and a running match listens to nobody. So it runs here, in a process that `coda.plates.readers.pattern` ends
when it takes too long. It reads one JSON object from its input and needs nothing but the standard library.
"""

import json
import re
import sys


def match(pattern: str, paths: list[str]) -> list[dict[str, str | None] | None]:
    """Return the named groups of each path, or None for paths that do not match.

    A match begins at the start of the path or behind any of its slashes, and goes to its end.
    """
    compiled = re.compile(pattern)
    found: list[dict[str, str | None] | None] = []
    for path in paths:
        starts = [0, *(place + 1 for place, letter in enumerate(path) if letter == "/")]
        hits = (compiled.fullmatch(path, start) for start in starts)
        hit = next((item for item in hits if item), None)
        found.append(hit.groupdict() if hit else None)
    return found


if __name__ == "__main__":
    request = json.load(sys.stdin)
    json.dump(match(request["pattern"], request["paths"]), sys.stdout)
