"""Candidates: the ways of serving one batch, from doing nothing to adaptation with alignment (decision 0006)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from coda.contracts.base import Digest, Part
from coda.contracts.documents import document_at
from coda.contracts.release import Alignment
from coda.durable import give_name
from coda.errors import ConfigError, IntegrityError, Problem

CANDIDATES_FILE = "candidates.json"

INCUMBENT = "incumbent"
"""Candidate that is the source's own present release, where that is none of the other ways."""

CLASSICAL = "classical"
"""Candidate that no network serves: the field's classical profile and a linear model (decision 0046)."""

UNTOUCHED = ("base", CLASSICAL)
"""Extractors of candidates that the source release serves as it is."""

Method = Literal["coda", "oda"]
"""Self-supervision with pairs of one treatment, or with single images."""

ADAPTED: dict[str, tuple[str, str]] = {"adapted": ("extractor", "state"), "adapted_oda": ("extractor_oda", "state_oda")}
"""Extractor that is adapted here -> folders of the candidates folder for its teacher and its whole state."""

_WAYS: dict[str, tuple[Method | None, Alignment]] = {
    "unadapted": (None, "none"),
    CLASSICAL: (None, "standardise"),
    "aligned": (None, "standardise"),
    "rescaled": (None, "rescale"),
    "coral": (None, "coral"),
    "oda": ("oda", "none"),
    "oda+aligned": ("oda", "standardise"),
    "oda+rescaled": ("oda", "rescale"),
    "oda+coral": ("oda", "coral"),
    "coda": ("coda", "none"),
    "coda+aligned": ("coda", "standardise"),
    "coda+rescaled": ("coda", "rescale"),
    "coda+coral": ("coda", "coral"),
}
"""Name -> how the extractor is adapted, and what is done to its tokens."""

_ORDER: tuple[Alignment, ...] = ("none", "standardise", "rescale", "coral")


class Candidate(Part):
    """One way of serving a batch: which extractor, which head, and what happens to the tokens between them."""

    name: str = Field(
        description="'unadapted', 'classical', 'aligned', 'coral', 'coda', 'coda+aligned', 'oda', ..., 'incumbent'"
    )
    extractor: Literal["base", "classical", "adapted", "adapted_oda", "incumbent"] = Field(
        description="The source release's extractor, the classical profile in its place, one adapted here (a second "
        "one by ODA beside CODA), or the incumbent's own."
    )
    alignment: Alignment = Field(description="What is done to the tokens before the head.")
    head: Literal["none", "standardise", "classical"] = Field(
        description="Alignment that the head was trained with; 'classical' for the one on profiles."
    )
    extractor_digest: Digest | None = Field(
        default=None,
        description="Digest of the extractor that a release of it binds: the one that predicted, or the "
        "one whose record of stains and preparation the classical profile shares.",
    )
    head_digest: Digest | None = Field(default=None, description="Digest of the head that predicted.")
    alarms: tuple[str, ...] = Field(default=(), description="Alarms of the training that made the extractor.")
    incumbent: bool = Field(default=False, description="Whether it serves the source already.")
    pool: Literal["cls", "mean"] = Field(
        default="mean", description="What of the tokens its features are: the class token, or the mean of all."
    )

    @property
    def complexity(self) -> int:
        """Place in the order of trying: unadapted, the classical profile, then alignment, then adaptation, then both.

        ODA needs no pairs, so it lies before CODA. What is added as the incumbent needs nothing new at all, so it lies
        with the first.
        """
        if self.name in {INCUMBENT, "unadapted"}:
            return 0
        if self.extractor == CLASSICAL:
            return 1
        steps = {None: 1, "oda": 1 + len(_ORDER), "coda": 1 + 2 * len(_ORDER)}
        return steps[self.method] + _ORDER.index(self.alignment)

    @property
    def method(self) -> Method | None:
        """How its extractor was adapted here; None where it was not."""
        if self.extractor not in ADAPTED:
            return None
        return "oda" if self.name.startswith("oda") else "coda"


def candidates_for(names: Sequence[str], method: Method) -> list[Candidate]:
    """Lay out the candidates in the order from simple to involved.

    Args:
        names: Candidates of the parameters, in any order; 'coda...' becomes 'oda...' where the pairing policy chose
            ODA. With both in the list and a policy that chose CODA, two extractors are adapted, and the gate chooses.
        method: What the pairing policy chose.

    Raises:
        ConfigError: A name is unknown.
    """
    unknown = [name for name in names if name not in _WAYS]
    if unknown:
        problem = Problem("adaptation.candidates", ", ".join(unknown), f"some of {', '.join(_WAYS)}", "Remove them.")
        raise ConfigError("There are unknown candidates.", [problem])
    served = dict.fromkeys(name.replace("coda", "oda") if method == "oda" else name for name in names)
    both = {_WAYS[name][0] for name in served} >= {"coda", "oda"}
    found = [_candidate(name, second=both and _WAYS[name][0] == "oda") for name in served]
    return sorted(found, key=lambda candidate: candidate.complexity)


def _candidate(name: str, *, second: bool) -> Candidate:
    method, alignment = _WAYS[name]
    if name == CLASSICAL:
        return Candidate(name=name, extractor="classical", alignment=alignment, head="classical")
    return Candidate(
        name=name,
        extractor="base" if method is None else "adapted_oda" if second else "adapted",
        alignment=alignment,
        head="standardise" if alignment == "standardise" else "none",
    )


def write_candidates(folder: Path, candidates: Sequence[Candidate]) -> Path:
    """Write the list of candidates into a candidates folder, whole or not at all."""
    path = folder / CANDIDATES_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps([candidate.model_dump(mode="json") for candidate in candidates], indent=2) + "\n")
    give_name(draft, path)
    return path


def read_candidates(folder: Path) -> list[Candidate]:
    """Read the list of candidates of a candidates folder.

    Raises:
        IntegrityError: The list is missing or is none.
    """
    path = folder / CANDIDATES_FILE
    try:
        shape = TypeAdapter(list[Candidate])
        return document_at(path, shape, expected="the list of candidates", remedy="Run the adaptation again.")
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = Problem(str(path), "nothing", "the list of candidates", "Run the adaptation again.")
        raise IntegrityError(f"{folder} is not a candidates folder.", [problem]) from error
