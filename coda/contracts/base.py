"""What every contract shares: strict, frozen, versioned, and JSON in and out."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from coda.durable import write_durably
from coda.errors import ContractError, Problem

Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""A name that is safe in paths, object keys and labels: letters, digits, dot, underscore, hyphen."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hexadecimal."""


MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""Size of the largest document that is read into memory; what a step or a person writes is far smaller."""

PATTERN_WORDS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": "a name of letters, digits, dot, underscore and hyphen, at most 100",
    r"^[0-9a-f]{64}$": "a SHA-256: 64 digits and letters a to f",
}
"""Pattern of a field -> what it means, for messages."""


class NewerDocumentError(ContractError):
    """A document of a later schema version than this program knows: a newer release of it wrote the document."""


class Part(BaseModel):
    """A piece of a contract: unknown keys and lenient conversions are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Contract(Part):
    """A document that crosses a boundary, with a schema version that readers check."""

    VERSION: ClassVar[int] = 1
    OLDER: ClassVar[frozenset[int]] = frozenset()
    """Earlier versions that are valid as they stand: their documents, and so their digests, stay what they are."""

    schema_version: int = Field(default=1, description="Version of this document's schema.")

    @classmethod
    def stored(cls, text: str | bytes, where: str) -> Self:
        """Read a document that another process of this platform wrote, of whatever release: more fields are no error.

        For records of what happened. What decides which model serves is read by `parse`: a field that this program does
        not know could be one on which its numbers depend.
        """
        return cls.parse(text, where, extra="ignore")

    @classmethod
    def parse(cls, text: str | bytes, where: str, *, extra: Literal["forbid", "ignore"] = "forbid") -> Self:
        """Read a document, reporting every problem at once.

        Args:
            text: The JSON document.
            where: Name of the document for messages: a path or an object key.
            extra: What unknown fields are.

        Raises:
            ContractError: The text is no JSON, has another schema version, or breaks the schema; with one problem
                for each field.
        """
        name = cls.__name__
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            # besides broken JSON: numbers of thousands of digits, and brackets nested by the thousand
            problem = Problem(where, f"text that is not JSON ({error})", f"a {name} in JSON", "Write the file again.")
            raise ContractError(f"{where} cannot be read as {name}.", [problem]) from error
        upgraded = cls.upgraded(raw) if isinstance(raw, dict) else raw
        version = upgraded.get("schema_version", 1) if isinstance(upgraded, dict) else None
        if version != cls.VERSION and not (isinstance(version, int) and version in cls.OLDER):
            problem = Problem(
                where,
                f"schema_version {version!r}",
                f"schema_version {' or '.join(map(str, sorted({*cls.OLDER, cls.VERSION})))}",
                f"Produce the document for this version (schema: docs/schemas/{name}.json).",
            )
            newer = isinstance(version, int) and version > cls.VERSION
            kind = NewerDocumentError if newer else ContractError
            raise kind(f"{where} is not a {name} of a version this program reads.", [problem])
        try:
            return cls.model_validate_json(text if upgraded is raw else json.dumps(upgraded), extra=extra)
        except ValidationError as error:
            raise ContractError(f"{where} is not a valid {name}.", problems_of(error, where)) from error
        except (RecursionError, ValueError) as error:
            problem = Problem(where, f"values that cannot be read ({error})", f"a {name}", "Write the file again.")
            raise ContractError(f"{where} cannot be read as {name}.", [problem]) from error

    @classmethod
    def upgraded(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Return a document of an earlier version in the form of this one; here, no earlier version is known.

        Returns:
            The same where it needs no change or cannot be read; then its version tells the reader.
        """
        return raw

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a document from a file of at most `MAX_DOCUMENT_BYTES`; see `parse`."""
        with path.open("rb") as file:
            text = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(text) > MAX_DOCUMENT_BYTES:
            found, expected = f"more than {MAX_DOCUMENT_BYTES} bytes", f"a {cls.__name__} of at most so many"
            raise ContractError(f"{path} is too large.", [Problem(str(path), found, expected, "Write the file again.")])
        return cls.parse(text, str(path))

    def to_json(self) -> str:
        """Return the document as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"

    def write(self, path: Path) -> Path:
        """Write the document whole or not at all, power cuts included, and return the path."""
        return write_durably(path, self.to_json().encode())

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON: independent of key order and white space."""
        return digest_of_json(self.model_dump(mode="json"))


def digest_of_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value with sorted keys and no white space."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def problems_of(error: ValidationError, where: str) -> list[Problem]:
    """Return one problem for each complaint of pydantic, with the dotted path of the field."""
    problems = []
    items = error.errors(include_url=False)
    for item in items:
        if item["type"] == "too_short" and any(
            other["loc"][: len(item["loc"])] == item["loc"] and other is not item for other in items
        ):
            continue  # a list is only called empty because what it holds is wrong, which is said by itself
        path = ".".join(str(step) for step in item["loc"])
        remedy = "Correct this field and deliver again."
        problems.append(Problem(f"{where}: {path}" if path else where, *_found_and_expected(item), remedy))
    return problems


def _found_and_expected(item: Any) -> tuple[str, str]:
    """Return what stood in a field and what belongs there, as parts of a sentence."""
    if item["type"] == "missing":
        return "nothing", "a value in this field"
    found = json.dumps(item["input"], default=repr)[:200]
    if item["type"] == "extra_forbidden":
        return found, "no field of this name"
    if item["type"] == "string_pattern_mismatch" and item["ctx"]["pattern"] in PATTERN_WORDS:
        return found, PATTERN_WORDS[item["ctx"]["pattern"]]
    words = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return found, words[:1].lower() + words[1:]
