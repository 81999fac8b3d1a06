"""The paper's own numbers (tables 2 and 3: accuracy over fields of view in percent, mean and standard deviation).

The printed row groups of table 2 are resolved by the column without an adapted value: a source is not its own target.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

COLUMNS = ("source_3", "source_5", "source_8", "source_11", "source_7", "source_10")

SHORT = {name: f"S{name.removeprefix('source_')}" for name in COLUMNS}
"""Name of a source in JUMP's metadata -> its name in the paper."""

_TABLE_2 = {
    "source_3": """
Supervised       39.0±0.4 13.5±1.3 15.6±0.9 11.4±1.0 19.5±0.8 12.0±0.6
Dual-model-DINO  35.6±0.2  9.2±1.2  9.9±0.1  7.1±0.5 14.8±0.5  9.5±0.8
Dual-model-CB    40.5±0.4 14.3±0.2 12.8±1.1  9.0±0.9 17.9±0.5 10.8±0.7
TTT              -         8.2±1.4  9.0±1.0  9.0±2.8 10.8±3.3  7.6±1.6
ODA              -        24.4±0.6 25.4±0.4 20.5±1.3 27.2±0.6 17.3±1.0
CODA             -        33.3±0.3 33.9±0.2 30.4±0.6 36.7±0.3 26.7±0.1
""",
    "source_5": """
Supervised        7.8±0.2 35.9±0.3 13.5±0.5  5.9±0.4 11.7±1.0 12.7±0.2
Dual-model-DINO   5.2±0.6 36.2±0.6 13.6±0.5  5.2±0.7  9.4±0.4 11.9±0.6
Dual-model-CB     6.0±1.0 36.6±0.7 14.9±0.9  5.3±1.0  9.1±0.5 12.6±0.6
TTT               6.6±1.6 -        10.4±1.8  5.9±1.0  9.2±2.2  9.0±1.2
ODA              13.9±1.1 -        25.5±0.4 14.9±1.0 23.4±0.7 20.4±0.7
CODA             26.7±1.3 -        28.5±1.1 21.2±0.7 27.6±0.6 28.1±0.5
""",
    "source_8": """
Supervised        9.5±0.6 11.8±1.4 31.0±0.5 10.3±1.5 18.3±0.4 12.0±0.7
Dual-model-DINO   7.0±0.7 12.0±0.8 31.2±0.9  8.4±0.4 13.0±0.4  9.7±0.3
Dual-model-CB     8.6±0.5 12.0±0.4 31.5±1.9  9.3±0.5 13.3±0.4  9.7±0.6
TTT               5.1±0.6  4.6±0.5 -         5.2±0.5  3.3±0.2  4.7±0.6
ODA              14.1±0.7 19.0±0.6 -        18.2±0.3 21.8±0.8 17.2±0.7
CODA             20.1±0.4 16.5±0.9 -        20.4±1.0 23.9±1.1 19.9±0.8
""",
    "source_11": """
Supervised        6.4±1.0  6.6±1.4  9.4±0.7 32.4±0.6  7.9±1.2  6.9±1.3
Dual-model-DINO   4.7±1.2  5.2±1.4  6.6±0.6 30.1±0.3  4.1±0.5  4.4±0.7
Dual-model-CB     4.5±0.4  4.7±0.7  6.9±1.6 31.6±0.8  4.4±1.0  4.4±1.0
TTT               4.7±0.2  4.9±0.3  7.8±1.4 -         7.0±0.0  5.6±0.6
ODA              10.6±0.2 14.8±0.9 17.5±1.1 -        17.7±1.3 11.0±0.3
CODA             21.5±0.5 16.5±1.4 22.1±0.9 -        23.8±1.6 11.9±1.2
""",
}

_TABLE_3 = """
Dual-model-MAE   14.2±0.8  8.9±0.5
Dual-model-DINO  14.8±0.5  9.5±0.8
ODA-MAE          17.8±1.1 11.1±0.4
ODA              27.2±0.6 17.3±1.0
"""
"""Trained on source_3; columns source_7 and source_10."""


@dataclass(frozen=True)
class Printed:
    """One number of the paper, in percent.

    Attributes:
        mean: Accuracy over fields of view.
        sd: Its standard deviation over runs.
    """

    mean: float
    sd: float

    def __str__(self) -> str:
        """Return it as the paper prints it."""
        return f"{self.mean:.1f} ± {self.sd:.1f}"


Key = tuple[str, str, str]
"""Source that was trained on, target, system."""


@cache
def table_2() -> dict[Key, Printed]:
    """Return table 2; the target of an in-domain number is the source itself."""
    return {key: value for source, text in _TABLE_2.items() for key, value in _read(text, source, COLUMNS)}


@cache
def table_3() -> dict[Key, Printed]:
    """Return table 3."""
    return dict(_read(_TABLE_3, "source_3", ("source_7", "source_10")))


def printed(source: str, target: str, system: str) -> Printed | None:
    """Return the paper's number for this job, or None when it has none.

    Args:
        source: Source that was trained on: 'source_3' or 'S3'.
        target: Target, likewise.
        system: 'CODA', 'Dual-model-CB', ...
    """
    full = {short: name for name, short in SHORT.items()}
    key = (full.get(source, source), full.get(target, target), system)
    return table_2().get(key) or table_3().get(key)


def _read(text: str, source: str, columns: tuple[str, ...]) -> Iterator[tuple[Key, Printed]]:
    for line in text.strip().splitlines():
        system, *values = line.split()
        for target, value in zip(columns, values, strict=True):
            if value != "-":
                mean, sd = value.split("±")
                yield (source, target, system), Printed(float(mean), float(sd))
