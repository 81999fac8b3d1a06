"""params.yaml and overlays -> one Params, with every problem reported at once."""

import re
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from coda.config.combinations import impossible_combinations
from coda.config.moved import MOVED, as_of_today, found_at, moved
from coda.config.params import Params
from coda.config.policy import STANDARD_POLICY, anchored, policy_path
from coda.contracts.base import digest_of_json
from coda.contracts.yaml_text import parse_yaml
from coda.errors import ConfigError, Problem, raise_if_any


class _Loader(yaml.SafeLoader):
    """YAML with the numbers people write: plain YAML 1.1 reads 1e-4 as text, because it has no point."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_params(base: Path, overlays: Sequence[Path] = (), settings: Sequence[str] = ()) -> Params:
    """Read the parameters.

    The gate's policy is read here too and becomes a part of them (`gate.policy`), so that the file travels with the
    parameters to every step, wherever it runs.

    Args:
        base: The complete parameter file, usually ``params.yaml``.
        overlays: Files with only the keys they change, applied in order.
        settings: Last changes as ``dotted.path=value``, the value in YAML.

    Raises:
        ConfigError: A file cannot be read, a key is unknown, a value has the wrong type or is out of range, or a
            combination is impossible; all of them together, each with its dotted path and the remedy.

    Example:
        >>> from pathlib import Path
        >>> params = load_params(Path("params.yaml"), [Path("params/demo.yaml")], ["adaptation.budget.iterations=96"])
        >>> params.adaptation.budget.iterations
        96
    """
    merged = anchored(_read(base), base.parent)
    problems = [_moved_key(base.name, key) for key in MOVED if found_at(merged, key)]
    for overlay in overlays:
        _merge(merged, anchored(_read(overlay), overlay.parent), overlay.name, (), problems)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            problems.append(Problem(setting, "no '='", "dotted.path=value", "Write for example seed=1."))
            continue
        nested: Any = _parse(text, f"--set {path}")
        for key in reversed(path.split(".")):
            nested = {key: nested}
        _merge(merged, nested, "--set", (), problems)
    merged = as_of_today(merged)  # an old key is told once, above, and hides no other problem
    policy = _fill_in_policy(merged, problems)
    name = " + ".join([base.name, *(overlay.name for overlay in overlays), *policy])
    params = None
    try:
        params = Params.model_validate(_tuples(merged), strict=True)
        problems.extend(impossible_combinations(params))
    except ValidationError as error:
        problems.extend(_problem(item) for item in error.errors(include_url=False))
        whole = _read(base)
        _fill_in_policy(whole, [])
        problems.extend(_combinations_of_the_rest(merged, whole, error))
    raise_if_any(ConfigError, f"{len(problems)} problem(s) in the parameters ({name}); nothing was computed.", problems)
    if params is None:  # unreachable: a validation error always leaves a problem; keeps the type checker honest
        raise ConfigError(f"The parameters ({name}) cannot be read.")
    return params


def statements(
    base: Path | None, overlays: Sequence[Path] = (), settings: Sequence[str] = ()
) -> list[tuple[str, dict[str, Any]]]:
    """Return who states which values: each named file or option, and its keys as they are nested in it.

    Args:
        base: A complete parameter file that a person named; None where nobody did.
        overlays: As for `load_params`, which tells what is wrong with them.
        settings: The same.
    """
    found = [(str(path), _read(path)) for path in ([] if base is None else [base]) + list(overlays)]
    for setting in settings:
        path, _, text = setting.partition("=")
        nested: Any = _parse(text, f"--set {path}")
        for key in reversed(path.split(".")):
            nested = {key: nested}
        found.append((f"--set {setting}", nested))
    return found


def changed(params: Params, changes: Mapping[str, Any]) -> Params:
    """Return parameters with some values changed, checked as a whole.

    Args:
        params: What is changed; it stays as it is.
        changes: Dotted path -> value, as YAML would give it.

    Raises:
        ConfigError: A key is unknown, or a value or a combination cannot be used; all problems together.

    Example:
        >>> from pathlib import Path
        >>> params = load_params(Path("params.yaml"))
        >>> changed(params, {"seed": 7}).seed, params.seed
        (7, 0)
    """
    merged, problems = params.model_dump(mode="json"), list[Problem]()
    for path, value in changes.items():
        for key in reversed(path.split(".")):
            value = {key: value}  # noqa: PLW2901 - the value is wrapped from the inside out
        _merge(merged, value, "changes", (), problems)
    raise_if_any(ConfigError, "The parameters cannot be changed like this.", problems)
    try:
        result = Params.model_validate(_tuples(merged), strict=True)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors(include_url=False)]
    else:
        problems = impossible_combinations(result)
        if not problems:
            return result
    raise ConfigError("The parameters cannot be changed like this.", problems)


def params_digest(params: Params) -> str:
    """Return the SHA-256 that names these parameters in records; the compute section is left out on purpose.

    Threads and devices change rounding, not the experiment: the same experiment on other machines has one name.
    """
    values = params.model_dump(mode="json")
    values.pop("compute")
    return digest_of_json(values)


NO_FILE = "Check the path; `coda params init` writes params.yaml and params/ into the current folder."
"""What to do where there is no file of parameters."""


def shipped_params() -> dict[str, Path]:
    """Return relative path -> file of the parameters that come with this program: the paper's, and the overlays.

    In a clone they lie at its root, where DVC wants them; an installed wheel has them below ``share/coda``.

    Raises:
        ConfigError: They are in neither place.
    """
    places = Path(__file__).parents[2], Path(sysconfig.get_path("data")) / "share" / "coda"
    for root in places:
        if (root / "params.yaml").is_file():
            return {
                str(path.relative_to(root)): path
                for path in (root / "params.yaml", *sorted(root.glob("params/*.yaml")))
            }
    problem = Problem(str(places[1]), "no params.yaml", "the files of the installed program", "Install it again.")
    raise ConfigError("The program's own parameters are missing.", [problem])


def _parse(text: str, where: str) -> Any:
    return parse_yaml(text, where, "The parameters cannot be read.", loader=_Loader)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = _parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        problem = Problem(str(path), "no such file", "a YAML file of parameters", NO_FILE)
        raise ConfigError("The parameters cannot be read.", [problem]) from error
    if not isinstance(content, dict):
        problem = Problem(str(path), type(content).__name__, "sections with keys", "Start from params.yaml.")
        raise ConfigError("The parameters cannot be read.", [problem])
    return content


def _fill_in_policy(merged: dict[str, Any], problems: list[Problem]) -> tuple[str, ...]:
    """Put the content of the policy file in the place of its name; return the name of the file, if one was read."""
    gate = merged.get("gate")
    named = gate.get("policy") if isinstance(gate, dict) else None
    if not isinstance(gate, dict) or named is None:
        return ()
    try:
        if isinstance(named, str):
            path = policy_path(named)
            gate["policy"] = _read(path)
            return (path.name,)
        if isinstance(named, dict) and "version" in named:
            return ()  # whole already, as in parameters that were written down before
        remedy = "Copy the file, change it there, raise its version, and name it here: a policy has one name for all."
        found = f"changes of single values ({', '.join(map(str, named))})" if isinstance(named, dict) else repr(named)
        problems.append(Problem("gate.policy", found, "the name or the path of a whole policy", remedy))
    except ConfigError as error:
        problems.extend(error.problems)
    # the project's own stands in, so that the other problems are found too
    gate["policy"] = _read(policy_path(STANDARD_POLICY))
    return ()


FREE_MAPPINGS = {("extractor", "overrides"), ("ingest", "renamed"), ("ingest", "earlier_illumination")}
"""Mappings whose keys are the user's: an overlay replaces them whole and may bring new keys."""


def _optional() -> frozenset[tuple[str, ...]]:
    """Return the keys that a complete file may lack: it was written before there were any."""
    sections = {name: field.annotation for name, field in Params.model_fields.items()}
    optional: set[tuple[str, ...]] = {(name,) for name, field in Params.model_fields.items() if not field.is_required()}
    return frozenset(optional).union(
        (name, key)
        for name, section in sections.items()
        if isinstance(section, type) and issubclass(section, BaseModel)
        for key, field in section.model_fields.items()
        if not field.is_required()
    )


OPTIONAL = _optional()


def _merge(
    target: dict[str, Any], change: dict[str, Any], where: str, above: tuple[str, ...], problems: list[Problem]
) -> None:
    for key, value in change.items():
        path = (*above, str(key))
        if moved(".".join(path)):
            problems.append(_moved_key(where, ".".join(path)))
        elif key not in target and path not in OPTIONAL:
            remedy = "Remove it, or correct the spelling" + _nearest(str(key), target)
            problems.append(Problem(f"{where}: {'.'.join(path)}", "an unknown key", "a key of params.yaml", remedy))
        elif isinstance(value, dict) and isinstance(target.get(key), dict) and path not in FREE_MAPPINGS:
            _merge(target[key], value, where, path, problems)
        else:
            target[key] = value


def _moved_key(where: str, key: str) -> Problem:
    now = " and ".join(moved(key))
    remedy = f"Write {now} instead; where there are two, each is read by its own step."
    return Problem(f"{where}: {key}", "a key that has moved", now, remedy)


def _nearest(key: str, known: dict[str, Any]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, list(known), n=1)
    return f" (did you mean {close[0]!r}?)." if close else f"; known here: {', '.join(sorted(known))}."


def _combinations_of_the_rest(merged: dict[str, Any], base: dict[str, Any], error: ValidationError) -> list[Problem]:
    # invalid values must not hide impossible combinations of the valid ones: put the base's value in their place
    for item in error.errors(include_url=False):
        target, source = merged, base
        path = [str(step) for step in item["loc"]]
        for key in path[:-1]:
            target, source = target.get(key, {}), source.get(key, {})
            if not isinstance(target, dict) or not isinstance(source, dict):
                return []
        if path[-1] in source:
            target[path[-1]] = source[path[-1]]
        else:
            target.pop(path[-1], None)
    try:
        return impossible_combinations(Params.model_validate(_tuples(merged), strict=True))
    except ValidationError:
        return []


def _tuples(value: Any) -> Any:
    # YAML has lists only; the model is frozen and strict, so it wants tuples
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _problem(item: Any) -> Problem:
    path = ".".join(str(step) for step in item["loc"])
    kind = item["type"]
    if kind == "extra_forbidden":
        return Problem(path, "an unknown key", "a key of the Params model", "Remove it, or correct the spelling.")
    if kind == "missing":
        return Problem(path, "nothing", "a value", "Add it; params.yaml shows the paper's value and its source.")
    found = f"{item['input']!r} ({type(item['input']).__name__})"
    return Problem(path, found, item["msg"].removeprefix("Input should be ").lower(), "Change the value.")
