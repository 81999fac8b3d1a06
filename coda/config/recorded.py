"""What a model was made with, held against today's parameters: the record decides, and a contradiction is an error.

A model's numbers depend on more than its weights: the crops it sees, the precision, the groups that an alignment is
fitted on, how the pixels were prepared. All of that is written down when the model is made (decision 0015). Here a
recorded value is a `Fact`; what a person says for this call is `Today`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coda.config.load import changed, load_params, statements
from coda.config.moved import as_of_today
from coda.config.params import Params
from coda.errors import ConfigError, Problem, raise_if_any

TRAINED = "trained"
"""Key of a model folder's config with what the model was made with, beside its crops."""

VIEWS = ("centre", "global_size", "local_size", "normalise", "eval_grid")
"""Keys of the `crops` section that a model is tied to; the others say how training varies its views."""

UNSAID = "auto"
"""A parameter of this value leaves the choice to the program, so it contradicts nothing."""

AUTOMATIC = ("compute.precision", "compute.attention")
"""Parameters that may be left to the program."""

HABITS = ("compute.threads",)
"""Parameters that change rounding alone: what is recorded is the default, so that the same call gives the same bytes on
the same machine, and a person may state another value."""


@dataclass(frozen=True)
class Fact:
    """A value that was written down when a model was made.

    Attributes:
        value: As JSON has it.
        where: Document that says so, for messages.
    """

    value: Any
    where: str


Facts = Mapping[str, Fact]
"""Dotted path of a parameter -> its recorded value."""


@dataclass(frozen=True)
class Today:
    """The parameters of a call, and which of them a person stated for it.

    Attributes:
        params: All parameters.
        stated: Dotted path -> file or option that states it. What is not stated is a default: it is not used where a
            record says otherwise, and it contradicts nothing.
        elsewhere: Where the values that are not stated stand.
    """

    params: Params
    stated: Mapping[str, str] = field(default_factory=dict)
    elsewhere: str = "params.yaml"

    @classmethod
    def read(cls, base: Path | None, overlays: Sequence[Path] = (), settings: Sequence[str] = ()) -> "Today":
        """Read the parameters of a command line; see `coda.config.load.load_params` for the errors.

        Args:
            base: The complete file that a person named, which states all it holds; None for ``params.yaml``, which
                nobody named and which states nothing.
            overlays: Files with only the keys they change.
            settings: Changes as ``dotted.path=value``.
        """
        default = Path("params.yaml")
        params = load_params(base or default, overlays, settings)
        stated = {
            path: where for where, values in statements(base, overlays, settings) for path in flat(values)
        }  # what comes later has the last word
        return cls(params, stated, str(default))

    @classmethod
    def of(cls, params: "Params | Today", where: str = "the parameters of the run") -> "Today":
        """Return parameters all of which were stated, as those of a pipeline run are."""
        if isinstance(params, Today):
            return params
        return cls(params, dict.fromkeys(flat(params.model_dump(mode="json")), where), where)

    def unstated(self) -> "Today":
        """Return the same parameters as mere defaults: they were stated for another model than the one at hand."""
        return Today(self.params, {}, self.elsewhere)

    def value(self, path: str) -> Any:
        """Return the value at a dotted path, as JSON has it; None where there is none."""
        value: Any = self.params.model_dump(mode="json", include={path.split(".", maxsplit=1)[0]})
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def origin(self, path: str) -> str | None:
        """Return who states the value at a path; None for a default, and for one that is left to the program."""
        stated = self.stated.get(path)
        if stated is None:
            # a mapping of the user's own keys, such as extractor.overrides, is stated with any of its keys
            stated = next((where for key, where in self.stated.items() if key.startswith(f"{path}.")), None)
        return None if path in AUTOMATIC and self.value(path) == UNSAID else stated


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested values by their dotted paths; an empty mapping is a value itself."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{above}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return found


def model_facts(config: Mapping[str, Any], where: str) -> dict[str, Fact]:
    """Return what a model folder says of how its model was made.

    Args:
        config: The folder's ``config.json``; folders written before decision 0015 say less.
        where: Name of the model, for messages.
    """
    made = f"config.json of {where}"
    crops, trained = config.get("crops") or {}, config.get(TRAINED) or {}
    found = {f"crops.{name}": crops[name] for name in VIEWS if name in crops}
    found |= {path: trained[path] for path in trained if "." in path}
    if config.get("kind") == "extractor":
        found |= {
            f"extractor.{name}": config[name] for name in ("arch", "overrides", "channels", "pool") if name in config
        }
    return {path: Fact(value, made) for path, value in found.items()}


def run_facts(params: Mapping[str, Any], where: str, paths: Iterable[str]) -> dict[str, Fact]:
    """Return what the kept parameters of a run say, for models whose own folders do not say it."""
    values = flat(as_of_today(params))
    return {path: Fact(values[path], where) for path in paths if path in values}


def joined(*records: Facts) -> dict[str, Fact]:
    """Return what several records say together.

    Raises:
        ConfigError: Two of them contradict each other.
    """
    found: dict[str, Fact] = {}
    problems = []
    for path, fact in (item for record in records for item in record.items()):
        known = found.setdefault(path, fact)
        if known.value == UNSAID:
            found[path] = fact
        elif fact.value != UNSAID and path not in HABITS and not same(known.value, fact.value):
            remedy = "These do not belong together; choose a release whose models were made alike."
            there = f"{known.value!r} ({known.where})"
            problems.append(Problem(path, f"{fact.value!r} ({fact.where})", there, remedy))
    raise_if_any(ConfigError, "The records of these models contradict each other.", problems)
    return found


def contradictions(facts: Facts, today: Today) -> list[Problem]:
    """Return one problem for each value that a person states and a record contradicts."""
    problems = []
    for path, fact in facts.items():
        origin, value = today.origin(path), today.value(path)
        if origin is None or path in HABITS or fact.value == UNSAID or same(value, fact.value):
            continue
        remedy = f"Set {path}={_typed(fact.value)}, or leave it out; another value needs another model."
        problems.append(
            Problem(path, f"{_typed(value)} ({origin})", f"{_typed(fact.value)}, recorded in {fact.where}", remedy)
        )
    return problems


def refuse_contradictions(facts: Facts, today: Today) -> None:
    """Raise a `ConfigError` that names every stated value and the recorded one that it contradicts."""
    message = "Parameters contradict what the model was made with; nothing was computed."
    raise_if_any(ConfigError, message, contradictions(facts, today))


def set_aside(facts: Facts, today: Today) -> list[str]:
    """Return a sentence for each default of today that is not used because a record says otherwise."""
    return [
        f"{path}: {_typed(fact.value)} is used, as recorded in {fact.where}; {today.elsewhere} has "
        f"{_typed(today.value(path))}"
        for path, fact in facts.items()
        if today.origin(path) is None
        and fact.value != UNSAID
        and path not in HABITS
        and not same(today.value(path), fact.value)
        and not (path in AUTOMATIC and today.value(path) == UNSAID)
    ]


def settled(facts: Facts, today: Today) -> Params:
    """Return today's parameters with every recorded value in its place, for a training that resumes from a model.

    Raises:
        ConfigError: A stated value contradicts a record; all of them together.
    """
    refuse_contradictions(facts, today)
    known = flat(today.params.model_dump(mode="json"))
    changes = {
        path: fact.value
        for path, fact in facts.items()
        if fact.value != UNSAID
        and not (path in HABITS and today.origin(path) is not None)
        and not same(today.value(path), fact.value)
        and (path in known or path == "extractor.overrides")
    }
    return changed(today.params, changes) if changes else today.params


def told(facts: Facts, today: Today, needed: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that serving needs: recorded, or, where no record tells them, stated by a person.

    Returns:
        Path -> value, and a sentence for each that no record tells.

    Raises:
        ConfigError: A stated value contradicts a record, or a value is neither recorded nor stated; all together.
    """
    problems = contradictions(facts, today)
    values: dict[str, Any] = {}
    notes = []
    for path in needed:
        fact, origin = facts.get(path), today.stated.get(path)
        if fact is not None and (fact.value != UNSAID or today.origin(path) is None):
            values[path] = fact.value
            if fact.value == UNSAID:
                notes.append(f"{path}: {fact.where} left it to the program, which may choose otherwise on this machine")
        elif origin is not None:
            values[path] = today.value(path)
            notes.append(f"{path}: no record of this model tells it; {_typed(values[path])} is used ({origin})")
        else:
            expected = "a record of it: this model was made before such records were kept"
            remedy = f"Find out what it was made with and say so, for example --set {path}={_typed(today.value(path))}."
            problems.append(Problem(path, "nothing", expected, remedy))
    raise_if_any(ConfigError, "What the model was made with contradicts the parameters, or is not known.", problems)
    return values, notes


def same(one: Any, other: Any) -> bool:
    """Return whether two values as JSON has them are the same; lists and tuples are."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _typed(value: Any) -> str:
    """Return a value as it is typed in YAML, on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_typed, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_typed(item)}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
