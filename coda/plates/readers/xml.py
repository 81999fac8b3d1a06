"""Reading XML that came with somebody's data: no document type, no entities, hence nothing that expands or fetches."""

from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element
from xml.parsers import expat

Takers = Mapping[str, Callable[[Element], None]]

MAX_DEPTH = 64
MAX_TEXT = 1 << 20
"""Most characters of an element's text that are kept; what instruments write between tags is far shorter."""

MAX_KEPT = 2_000_000
"""Most elements that are held at once; those that a caller takes one by one are not held."""


class UnsafeXmlError(ValueError):
    """The document is no XML, or asks for more than plain elements; the text is the reason."""


def parse_xml(data: bytes, each: Takers | None = None) -> Element:
    """Return the root element, with the namespaces taken off the names.

    Args:
        data: The document.
        each: Name of an element -> who takes it, whole, as soon as it is read; it is not part of the result then, so
            that an index of a million images needs the memory of one.

    Raises:
        UnsafeXmlError: The document is malformed, declares a document type or entities, or is nested or long beyond
            all measure.
    """
    builder = _Builder(each or {})
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes it by position only
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, UnsafeXmlError):
            raise
        message = f"is not well-formed XML ({error})"
        raise UnsafeXmlError(message) from error
    return builder.root


class _Builder:
    """Elements as they open and close; texts between children are not kept, no instrument writes there."""

    def __init__(self, each: Takers) -> None:
        self.root = Element("nothing")
        self._each = each
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._taken: list[bool] = []
        self._kept = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        element = Element(_local(name), {_local(key): value for key, value in attributes.items()})
        taken = element.tag in self._each
        if len(self._open) >= MAX_DEPTH:
            raise UnsafeXmlError(f"nests elements more than {MAX_DEPTH} deep")
        if not self._open:
            self.root = element
        elif not taken:
            self._open[-1].append(element)
        inside = bool(self._taken and self._taken[-1])
        self._kept += not (taken or inside)
        if self._kept > MAX_KEPT:
            raise UnsafeXmlError(f"has more than {MAX_KEPT} elements besides those it should list")
        self._open.append(element)
        self._texts.append([])
        self._taken.append(taken or inside)

    def end(self, _: str) -> None:
        element = self._open.pop()
        self._taken.pop()
        parts = self._texts.pop()
        if parts:
            element.text = "".join(parts)[:MAX_TEXT]
        take = self._each.get(element.tag)
        if take is not None:
            take(element)

    def data(self, text: str) -> None:
        parts = self._texts[-1]
        # pieces of a text come in blocks of some thousand characters
        if len(self._open[-1]) == 0 and len(parts) < MAX_TEXT // 1000:
            parts.append(text)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _refuse(*_: object) -> None:
    message = "declares a document type or entities, which no instrument's index needs"
    raise UnsafeXmlError(message)
