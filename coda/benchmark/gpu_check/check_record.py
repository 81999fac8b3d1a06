"""What was measured, as one JSON file that is written whole after every measurement."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coda.durable import write_durably
from coda.errors import ConfigError, Problem

NAME = "gpu_check.json"
VERSION = 1


@dataclass
class Record:
    """All measurements of one machine with one version of the program.

    Attributes:
        key: What results are tied to: device, torch, CUDA, code, size.
        machine: What was measured on.
        planned: Names of all measurements, in order.
        items: Name -> what became of it; 'state' is 'measured' or 'failed'. What is not there was not begun, or was
            cut off by the time limit of the whole.
    """

    key: dict[str, str]
    machine: dict[str, Any]
    planned: list[str]
    items: dict[str, dict[str, Any]] = field(default_factory=dict)

    def measured(self, name: str) -> bool:
        """Whether a measurement needs not be made again."""
        return self.items.get(name, {}).get("state") == "measured"

    def failed(self, name: str) -> bool:
        """Whether a measurement was tried and gave nothing."""
        return self.items.get(name, {}).get("state") == "failed"

    def result(self, name: str) -> dict[str, Any] | None:
        """Return the numbers of a measurement, or None."""
        found: dict[str, Any] | None = self.items.get(name, {}).get("result")
        return found

    def results(self, prefix: str) -> list[dict[str, Any]]:
        """Return the entries of all measurements whose names begin so, in the order of the plan."""
        return [
            {"name": name, **self.items[name]}
            for name in self.planned
            if name.startswith(prefix) and self.measured(name)
        ]

    def write(self, path: Path, tables: Sequence[dict[str, Any]]) -> None:
        """Write the file whole or not at all."""
        content = {"version": VERSION, **vars(self), "tables": list(tables)}
        write_durably(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        ConfigError: It is absent, or no record of this version.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            found = f"version {content['version']!r}"
        else:
            parts = (content["key"], content["machine"], content["planned"], content["items"])
            if all(isinstance(part, kind) for part, kind in zip(parts, (dict, dict, list, dict), strict=True)):
                return Record(*parts)
            found = "parts of other kinds"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    remedy = "Move the file away, or give another --out."
    problem = Problem(str(path), found, f"a record of the GPU check, version {VERSION}", remedy)
    raise ConfigError("The record cannot be read; nothing was measured.", [problem])


def open_record(path: Path, key: dict[str, str], machine: dict[str, Any], planned: list[str]) -> tuple[Record, str]:
    """Return the record to resume, and a sentence about one that was set aside.

    A record of another device, torch or code is renamed, never overwritten.

    Raises:
        ConfigError: The file there is no record.
    """
    if not path.exists():
        return Record(key, machine, planned), ""
    found = read_record(path)
    if found.key == key:
        return Record(key, machine, planned, found.items), ""
    differs = ", ".join(sorted(name for name in key | found.key if key.get(name) != found.key.get(name)))
    number = 1
    while (aside := path.with_name(f"{path.stem}-before-{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)
    return Record(key, machine, planned), f"An earlier record differs in {differs}; it is kept as {aside.name}."
