"""Candidates: the ways of serving one batch, from doing nothing to adaptation with alignment (decision 0006)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from coda.contracts.base import Digest, Part
from coda.contracts.release import Alignment
from coda.errors import ConfigError, IntegrityError, Problem

CANDIDATES_FILE = "candidates.json"

INCUMBENT = "incumbent"
"""Candidate that is the source's own present release, where that is none of the other ways."""

_WAYS: dict[str, tuple[bool, Alignment]] = {
    "unadapted": (False, "none"),
    "aligned": (False, "standardise"),
    "coral": (False, "coral"),
    "coda": (True, "none"),
    "coda+aligned": (True, "standardise"),
    "coda+coral": (True, "coral"),
}
"""Name -> whether the extractor is adapted, and what is done to its tokens."""

_ORDER: tuple[Alignment, ...] = ("none", "standardise", "coral")


class Candidate(Part):
    """One way of serving a batch: which extractor, which head, and what happens to the tokens between them."""

    name: str = Field(description="'unadapted', 'aligned', 'coral', 'coda', 'coda+aligned', 'oda', ..., 'incumbent'")
    extractor: Literal["base", "adapted", "incumbent"] = Field(
        description="The source release's extractor, the one adapted here, or the incumbent's own."
    )
    alignment: Alignment = Field(description="What is done to the tokens before the head.")
    head: Literal["none", "standardise"] = Field(description="Alignment that the head was trained with.")
    extractor_digest: Digest | None = Field(default=None, description="Digest of the extractor that predicted.")
    head_digest: Digest | None = Field(default=None, description="Digest of the head that predicted.")
    alarms: tuple[str, ...] = Field(default=(), description="Alarms of the training that made the extractor.")
    incumbent: bool = Field(default=False, description="Whether it serves the source already.")

    @property
    def complexity(self) -> int:
        """Place in the order of trying: unadapted first, then alignment, then adaptation, then both.

        What is added as the incumbent needs nothing new at all, so it lies with the first.
        """
        return 0 if self.name == INCUMBENT else (3 if self.extractor == "adapted" else 0) + _ORDER.index(self.alignment)


def candidates_for(names: Sequence[str], method: Literal["coda", "oda"]) -> list[Candidate]:
    """Lay out the candidates in the order from simple to involved.

    Args:
        names: Candidates of the parameters, in any order; 'coda...' becomes 'oda...' where the ladder chose ODA.
        method: What the ladder chose for the adapted extractor.

    Raises:
        ConfigError: A name is unknown.
    """
    known = dict(_WAYS) | {name.replace("coda", "oda"): way for name, way in _WAYS.items()}
    unknown = [name for name in names if name not in known]
    if unknown:
        problem = Problem("adaptation.candidates", ", ".join(unknown), f"some of {', '.join(known)}", "Remove them.")
        raise ConfigError("There are unknown candidates.", [problem])
    found = {}
    for name in names:
        adapted, alignment = known[name]
        served = f"{method}{name[name.index('+') :] if '+' in name else ''}" if adapted else name
        head: Literal["none", "standardise"] = "standardise" if alignment == "standardise" else "none"
        found[served] = Candidate(
            name=served, extractor="adapted" if adapted else "base", alignment=alignment, head=head
        )
    return sorted(found.values(), key=lambda candidate: candidate.complexity)


def write_candidates(folder: Path, candidates: Sequence[Candidate]) -> Path:
    """Write the list of candidates into a candidates folder, whole or not at all."""
    path = folder / CANDIDATES_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps([candidate.model_dump(mode="json") for candidate in candidates], indent=2) + "\n")
    draft.replace(path)
    return path


def read_candidates(folder: Path) -> list[Candidate]:
    """Read the list of candidates of a candidates folder.

    Raises:
        IntegrityError: The list is missing or is none.
    """
    path = folder / CANDIDATES_FILE
    try:
        return TypeAdapter(list[Candidate]).validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        problem = Problem(str(path), str(error).splitlines()[0], "the list of candidates", "Run the adaptation again.")
        raise IntegrityError(f"{folder} is not a candidates folder.", [problem]) from error
