"""How a table is written: what a person says about it, and the error of a table that cannot be read."""

import codecs
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from coda.errors import ConfigError, Problem, raise_if_any

SEPARATORS: Mapping[str, str] = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
"""Name of a separator -> the character."""

SEPARATOR_OPTION, ENCODING_OPTION, DECIMAL_OPTION = "--table-separator", "--table-encoding", "--table-decimal"


class UnreadableTableError(ValueError):
    """A table that cannot be read; the text is the reason, as a part of a sentence.

    Attributes:
        remedy: What the user of a command can type, empty where no option helps.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        """Keep the reason and the remedy."""
        self.remedy = remedy
        super().__init__(reason)


@dataclass(frozen=True)
class Dialect:
    """What a person says of how a table is written; None where the table itself shall tell.

    Attributes:
        separator: Character between values.
        encoding: Name of a text encoding as Python knows it.
        decimal: '.' or ','; the other one then parts thousands, if it stands where thousands are parted.
    """

    separator: str | None = None
    encoding: str | None = None
    decimal: str | None = None


@dataclass(frozen=True)
class Dialects:
    """Dialects of the tables of one command.

    Attributes:
        default: For every table that is not named.
        named: File name -> dialect.
    """

    default: Dialect = Dialect()
    named: Mapping[str, Dialect] = field(default_factory=dict)

    def of(self, path: str) -> Dialect:
        """Return the dialect of a table by its path; its last part decides."""
        return self.named.get(path.replace("\\", "/").rpartition("/")[2], self.default)

    def require_used(self, paths: Collection[str]) -> None:
        """Raise a `ConfigError` when an option names a table that was not read."""
        known = {path.replace("\\", "/").rpartition("/")[2] for path in paths}
        problems = [
            Problem("--table-*", f"options for {name}", f"a table among {', '.join(sorted(known)[:20]) or 'none'}",
                    "Correct the name before the '='.")
            for name in sorted(set(self.named) - known)
        ]  # fmt: skip
        raise_if_any(ConfigError, "An option is about a table that is not read.", problems)


def dialects_of(separators: Sequence[str], encodings: Sequence[str], decimals: Sequence[str]) -> Dialects:
    """Return the dialects that the options of a command line say.

    Args:
        separators: Values of `--table-separator`: a name of `SEPARATORS` or the character; with ``FILE=`` before it
            for one table alone.
        encodings: Values of `--table-encoding`: utf-8, utf-16, cp1252, mac_roman, ...
        decimals: Values of `--table-decimal`: point or comma.

    Raises:
        ConfigError: A value is none of these, or is given twice.
    """
    problems: list[Problem] = []
    said: dict[str, dict[str, str]] = {}
    for option, name, values, reading, expected in (
        (SEPARATOR_OPTION, "separator", separators, _separator, f"{', '.join(SEPARATORS)} or the character"),
        (ENCODING_OPTION, "encoding", encodings, _encoding, "an encoding such as utf-8, utf-16, cp1252 or mac_roman"),
        (DECIMAL_OPTION, "decimal", decimals, _decimal, "point or comma"),
    ):
        for value in values:
            file, _, text = value.rpartition("=") if len(value) > 1 else ("", "", value)
            meant = reading(text)
            if meant is None:
                problems.append(
                    Problem(option, repr(value), expected, f"For example {option} wells.csv={text or ';'}.")
                )
            elif said.setdefault(file, {}).setdefault(name, meant) != meant:
                problems.append(Problem(option, f"two values for {file or 'all tables'}", "one", "Leave one."))
    raise_if_any(ConfigError, "How a table is written cannot be understood.", problems)
    every = said.pop("", {})
    return Dialects(Dialect(**every), {name: Dialect(**{**every, **one}) for name, one in said.items()})


def _separator(text: str) -> str | None:
    meant = SEPARATORS.get(text.lower(), {"\\t": "\t"}.get(text, text))
    return meant if len(meant) == 1 and not meant.isalnum() and meant not in '"\r\n.' else None


def _encoding(text: str) -> str | None:
    try:
        return codecs.lookup(text).name
    except LookupError:
        return None


def _decimal(text: str) -> str | None:
    return {"point": ".", "comma": ",", ".": ".", ",": ","}.get(text.lower())
