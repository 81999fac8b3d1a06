"""Candidates: the ways of serving one batch, from doing nothing to adaptation with alignment (decision 0006)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from coda.contracts.base import Digest, Part
from coda.contracts.documents import document_at
from coda.contracts.recipe import CLASSICAL, RECIPES, Alignment, HeadAlignment, Method, Recipe
from coda.durable import give_name
from coda.errors import ConfigError, IntegrityError, Problem

CANDIDATES_FILE = "candidates.json"

INCUMBENT = "incumbent"
"""Candidate that is the source's own present release, where that is none of the other ways."""

AnyExtractor = Literal["base", "classical", "adapted", "adapted_oda", "incumbent"]

UNTOUCHED = ("base", CLASSICAL)
"""Extractors of candidates that the source release serves as it is."""

ADAPTED: dict[str, tuple[str, str]] = {"adapted": ("extractor", "state"), "adapted_oda": ("extractor_oda", "state_oda")}
"""Extractor that is adapted here -> folders of the candidates folder for its teacher and its whole state."""


class Candidate(Part):
    """One way of serving a batch: which extractor, which head, and what happens to the tokens between them."""

    name: str = Field(
        description="'unadapted', 'classical', 'aligned', 'coral', 'coda', 'coda+aligned', 'oda', ..., 'incumbent'"
    )
    extractor: AnyExtractor = Field(
        description="The source release's extractor, the classical profile in its place, one adapted here (a second "
        "one by ODA beside CODA), or the incumbent's own."
    )
    alignment: Alignment = Field(description="What is done to the tokens before the head.")
    head: HeadAlignment = Field(
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
        return list(RECIPES).index(self.name) if self.name in RECIPES else 0

    @property
    def method(self) -> Method | None:
        """How its extractor was adapted here; None where it was not."""
        recipe = RECIPES.get(self.name)
        return recipe.method if recipe is not None and self.extractor in ADAPTED else None


def candidates_for(names: Sequence[str], method: Method) -> list[Candidate]:
    """Lay out the candidates in the order from simple to involved.

    Args:
        names: Candidates of the parameters, in any order; 'coda...' becomes 'oda...' where the pairing policy chose
            ODA. With both in the list and a policy that chose CODA, two extractors are adapted, and the gate chooses.
        method: What the pairing policy chose.

    Raises:
        ConfigError: A name is unknown.
    """
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        problem = Problem("adaptation.candidates", ", ".join(unknown), f"some of {', '.join(RECIPES)}", "Remove them.")
        raise ConfigError("There are unknown candidates.", [problem])
    wanted = [RECIPES[name] for name in names]
    if method == "oda":
        wanted = [recipe.adapted_by("oda") if recipe.method else recipe for recipe in wanted]
    both = {recipe.method for recipe in wanted} >= {"coda", "oda"}
    found = [_candidate(recipe, second=both and recipe.method == "oda") for recipe in dict.fromkeys(wanted)]
    return sorted(found, key=lambda candidate: candidate.complexity)


def _candidate(recipe: Recipe, *, second: bool) -> Candidate:
    extractor: AnyExtractor = "base" if recipe.method is None else "adapted_oda" if second else "adapted"
    return Candidate(
        name=str(recipe),
        extractor="classical" if recipe.head == CLASSICAL else extractor,
        alignment=recipe.alignment,
        head=recipe.head,
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
