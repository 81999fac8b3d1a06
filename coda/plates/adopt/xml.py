"""Reading XML that came with somebody's data: no document type, no entities, hence nothing that expands or fetches."""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat


class UnsafeXmlError(ValueError):
    """The document is no XML, or asks for more than plain elements; the text is the reason."""


def parse_xml(data: bytes) -> Element:
    """Return the root element, with the namespaces taken off the names.

    Raises:
        UnsafeXmlError: The document is malformed, or declares a document type or entities.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.StartElementHandler = lambda name, attributes: builder.start(_local(name), attributes)
    parser.EndElementHandler = lambda name: builder.end(_local(name))
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes it by position only
    except expat.ExpatError as error:
        message = f"is not well-formed XML ({error})"
        raise UnsafeXmlError(message) from error
    return builder.close()


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _refuse(*_: object) -> None:
    message = "declares a document type or entities, which no instrument's index needs"
    raise UnsafeXmlError(message)
