"""Expectation suites: versioned YAML files that a laboratory can read and edit.

A suite lists expectations in Great Expectations' own vocabulary over the tables of `coda.quality.expected_tables`, and
adds what that vocabulary lacks: what a failure means and what to do about it, in words for the people at the bench.
"""

from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from coda.contracts.base import problems_of
from coda.contracts.yaml_text import parse_yaml
from coda.errors import ConfigError, Problem

SUITES = Path(__file__).parent / "suites"

TableName = Literal["fields", "wells", "plates", "stains", "batch", "problems", "history"]

Words = Annotated[str, StringConstraints(min_length=5, strip_whitespace=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Expectation(_Strict):
    """One thing that is expected of a batch."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{2,59}$")
    group: Literal["contract", "plate", "history"]
    severity: Literal["critical", "warning", "info"]
    table: TableName = Field(description="Table it is evaluated on; docs/quality.md lists the columns.")
    expect: str = Field(pattern=r"^expect_[a-z0-9_]+$", description="Great Expectations' name of the expectation.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Its arguments; {$PARAMETER: x} is quality.x.")
    found: Words = Field(description="What was found, with $column for the values of the row that failed.")
    expected: Words = Field(description="What should have been there, with $parameter for values of quality.*.")
    reason: Words = Field(description="What it means for the experiment, in plain language.")
    remedy: Words = Field(description="What to do about it.")


class History(_Strict):
    """What is compared with earlier accepted batches of the same source and instrument."""

    statistics: tuple[str, ...] = Field(description="Statistics of every stain whose plate median is compared.")
    correlations: bool = Field(description="Also compare the correlations between stains.")
    min_relative_mad: float = Field(ge=0, description="A MAD counts as at least this share of the median's size.")
    min_absolute_mad: float = Field(ge=0, description="And as at least this much: for statistics near 0.")


class Suite(_Strict):
    """All expectations of one kind of experiment."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{2,59}$")
    version: int = Field(ge=1)
    description: Words
    history: History
    expectations: tuple[Expectation, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [item.name for item in self.expectations]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            message = f"each expectation has its own name, but {repeated} appear more than once"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _templates_can_be_filled(self) -> Self:
        for item in self.expectations:
            for text in (item.found, item.expected):
                if not Template(text).is_valid():
                    message = f"{item.name}: a single '$' in {text!r}; write $column, or $$ for the sign itself"
                    raise ValueError(message)
        return self

    @property
    def title(self) -> str:
        """Name and version as records carry it."""
        return f"{self.name} version {self.version}"


def load_suite(name: str) -> Suite:
    """Read a suite: a name in ``coda/quality/suites``, or the path of a YAML file.

    Raises:
        ConfigError: There is no such suite, or it breaks the model; every problem with its place in the file.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SUITES.glob("*.yaml")))
        problem = Problem("quality.suite", name, f"one of {known}, or the path of a .yaml file", "Correct the name.")
        raise ConfigError("The expectation suite cannot be found.", [problem])
    content = parse_yaml(path.read_text(encoding="utf-8"), str(path), "The expectation suite cannot be read.")
    try:
        return Suite.model_validate(_tuples(content))
    except ValidationError as error:
        raise ConfigError(f"{path.name} is not a valid expectation suite.", problems_of(error, path.name)) from error


def _tuples(content: Any) -> Any:
    # YAML has lists only; the model is frozen and wants tuples, but arguments go to Great Expectations as they are
    if not isinstance(content, dict):
        return content
    changed = dict(content)
    if isinstance(changed.get("expectations"), list):
        changed["expectations"] = tuple(changed["expectations"])
    history = changed.get("history")
    if isinstance(history, dict) and isinstance(history.get("statistics"), list):
        changed["history"] = {**history, "statistics": tuple(history["statistics"])}
    return changed
