"""JSON without a contract of its own that another process wrote: bounded in size, with an error when it is cut."""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from coda.contracts.base import MAX_DOCUMENT_BYTES
from coda.errors import IntegrityError, Problem

Shape = TypeVar("Shape")


def document(content: bytes, shape: TypeAdapter[Shape], *, where: str, expected: str, remedy: str) -> Shape:
    """Return what a JSON text holds, of the shape its readers rely on; more fields than they know are tolerated.

    Raises:
        IntegrityError: It is no JSON, or of another shape; with the first place that is wrong.
    """
    try:
        return shape.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        found = f"{place}: {first['msg']}" if place else first["msg"]
    except (ValueError, RecursionError) as error:
        found = str(error)
    problem = Problem(where, found[:300], expected, remedy)
    raise IntegrityError(f"{where} cannot be read.", [problem])


def document_at(path: Path, shape: TypeAdapter[Shape], *, expected: str, remedy: str) -> Shape:
    """Return what a JSON file of at most `MAX_DOCUMENT_BYTES` holds; see `document`.

    Raises:
        FileNotFoundError: There is no such file.
        IntegrityError: It is too large, no JSON, or of another shape.
    """
    size = path.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        problem = Problem(str(path), f"{size} bytes", f"{expected}, of at most {MAX_DOCUMENT_BYTES} bytes", remedy)
        raise IntegrityError(f"{path} cannot be read.", [problem])
    return document(path.read_bytes(), shape, where=str(path), expected=expected, remedy=remedy)
