"""From bytes to text: marks at the start, UTF-8, UTF-16, and the code pages of spreadsheets where they agree.

A text in an 8-bit code page says nowhere in which. It is read as Windows-1252 where the code pages in use give the same
letters for its bytes; else the user is asked, with what each would make of it.
"""

import codecs
import gzip
import io
import re
import zlib

from coda.plates.tabular.dialect import ENCODING_OPTION, UnreadableTableError
from coda.plates.tabular.wording import plain

MAX_TABLE_BYTES = 256 * 2**20

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Byte order marks -> encoding; that of UTF-32 begins as that of UTF-16 does, so it comes first."""

_WESTERN = "cp1252"
_OTHERS = ("cp1250", "cp1251", "cp1253", "cp1254", "iso8859-15", "mac_roman")
"""Other code pages in use: with Windows-1252 they agree on the micro sign and a few others, and on no letter."""

_ADMITTED = frozenset("°")
"""Signs that are taken although a Mac has another one there, which no table holds."""

_ASKED = ("cp1252", "mac_roman", "cp1250", "cp1251", "cp1253", "cp437")
"""Code pages that a user is shown."""

_ASK = f"Name its encoding ({ENCODING_OPTION} cp1252, mac_roman, utf-16, ...), or save it as UTF-8."

_BINARY = (
    (b"PK\x03\x04", "is an Excel workbook (or another zip archive)"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook"),
)
_WORD = re.compile(r"[^\s,;\t|\"]+")


def unpacked(data: bytes) -> bytes:
    """Return what a gzip file holds.

    Raises:
        UnreadableTableError: It is damaged, or unpacks to more than a table may have.
    """
    try:
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableTableError(f"is damaged gzip ({error})") from error
    if len(text) > MAX_TABLE_BYTES:
        raise UnreadableTableError(f"unpacks to more than {MAX_TABLE_BYTES // 2**20} MiB")
    return text


def decoded(data: bytes, encoding: str | None = None) -> tuple[str, str]:
    """Return the text of a table, and a remark where its encoding is another than UTF-8 (else empty).

    Args:
        data: The file, unpacked.
        encoding: What a person says; told from the bytes when None.

    Raises:
        UnreadableTableError: It is no text, or its code page must be named.
    """
    if len(data) > MAX_TABLE_BYTES:
        raise UnreadableTableError(f"is larger than {MAX_TABLE_BYTES // 2**20} MiB")
    for start, what in _BINARY:
        if data.startswith(start):
            raise UnreadableTableError(what, "Save it as CSV (UTF-8) and give that.")
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    told = _told(data) if marked is None else None
    wide = encoding is not None and encoding.replace("_", "-") == "utf-16" and told in {"utf-16-le", "utf-16-be"}
    name = marked or (told if encoding is None or wide else encoding)
    if name is None:
        return _of_code_page(data)
    try:
        text = data.decode(name)
    except (UnicodeDecodeError, UnicodeError, LookupError) as error:
        place = getattr(error, "start", 0)
        raise UnreadableTableError(f"is not text in {name} (byte {place})", _ASK) from error
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        raise UnreadableTableError("holds bytes that are no text", _ASK)
    utf8 = name.replace("-", "_") in {"utf_8", "utf_8_sig", "utf8"}
    return text, "" if utf8 else f"encoding {name}"


def _told(data: bytes) -> str | None:
    """Return the Unicode encoding of bytes without a mark, None when they are in none."""
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        half = data[start : 1 << 16 : 2]
        if len(data) % 2 == 0 and len(half) > 1 and half.count(0) > 0.6 * len(half):
            return name
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return "utf-8"


def _of_code_page(data: bytes) -> tuple[str, str]:
    """Return text of an 8-bit code page where those in use agree on it."""
    try:
        text = data.decode(_WESTERN)
    except UnicodeDecodeError as error:
        raise UnreadableTableError(f"is not text in UTF-8 (byte {error.start})", _ASK) from error
    words = [word for word in dict.fromkeys(_WORD.findall(text)) if not word.isascii()]
    unsure = [word for word in words if not _sure(word)]
    if unsure or "\0" in text:
        raw = unsure[0].encode(_WESTERN) if unsure else b""
        readings = {name: raw.decode(name, "replace") for name in _ASKED}
        may = ", ".join(f"{plain(word, 40)!r} in {name}" for name, word in readings.items())
        raise UnreadableTableError(f"is not in UTF-8, and its code page is not sure: a word may be {may}", _ASK)
    told = ", ".join(repr(plain(word, 40)) for word in words[:5]) + (", ..." if len(words) > 5 else "")
    return text, f"encoding Windows-1252, which gives {told}"


def _sure(word: str) -> bool:
    """Return whether the code pages in use agree on a word."""
    raws = (letter.encode(_WESTERN) for letter in word if not letter.isascii() and letter not in _ADMITTED)
    return all(raw.decode(name, "replace") == raw.decode(_WESTERN) for raw in raws for name in _OTHERS)
