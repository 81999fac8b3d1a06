"""Foreign texts in messages, and the spellings with which tables mark a missing value."""

NOTHING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "<na>", "-nan", "-", "--"})
"""Texts, in lower case, with which tables say that there is no value."""


def shown(name: str) -> str:
    """Return a name from a table in quotation marks for a message, on one line and not endless."""
    return f"'{plain(name)}'"


def plain(text: str, most: int = 200) -> str:
    """Return a text of somebody else's for a message: printable, on one line, and not endless."""
    line = " ".join(text.split())
    line = line if line.isprintable() else repr(line)[1:-1]
    return line if len(line) <= most else line[:most] + "..."
