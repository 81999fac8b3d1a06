"""What a release and its model folders record of how they were made, gathered for whoever serves or continues them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from coda.config.recorded import HABITS, TRAINED, Fact, Facts, Today, joined, model_facts, run_facts
from coda.config.served_params import NEEDED, Serving
from coda.contracts import ModelRef, ReleaseRecord
from coda.contracts.base import digest_of_json
from coda.errors import IntegrityError, Problem
from coda.networks.classical_head import ClassicalHead
from coda.networks.extractor import Extractor
from coda.networks.head import Head
from coda.networks.made_with import HELD_OUT
from coda.networks.profile import Profile
from coda.networks.runtime import resolve_runtime
from coda.plates.dataset import BatchFolder
from coda.plates.preparation import known_parameters, prepared, require_prepared
from coda.registry.drafts import PARAMS, read_kept
from coda.settings import Settings


def named(ref: ModelRef) -> str:
    """Return what a registered version is called in messages."""
    return f"{ref.name} version {ref.version}"


def facts_of(models: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Fact]:
    """Return what model folders record together.

    Raises:
        ConfigError: They contradict each other.
    """
    records: list[Facts] = []
    for name, config in models:
        made = f"config.json of {name}"
        pixels = known_parameters(config.get(TRAINED) or {})
        records += [model_facts(config, name), {path: Fact(value, made) for path, value in pixels.items()}]
    return joined(*records)


def split_facts(config: Mapping[str, Any], where: str) -> dict[str, Fact]:
    """Return what a model says of the plates of its source that it has not learned from."""
    held = (config.get(TRAINED) or {}).get(HELD_OUT) or {}
    return {f"split.{name}": Fact(value, f"config.json of {where}") for name, value in held.items()}


def release_facts(
    record: ReleaseRecord, extractor: Extractor | Profile, head: Head | ClassicalHead, settings: Settings
) -> dict[str, Fact]:
    """Return everything that is recorded of how a release is served.

    What its own model folders do not tell, because they are older than decision 0015, is looked up in the parameters
    that its run kept, if these are the ones that the release names.

    Raises:
        ConfigError: Two of the records contradict each other.
        IntegrityError: The kept parameters are not those of the run.
    """
    own = facts_of([(named(record.extractor), extractor.config), (named(record.head), head.config)])
    if record.min_top_over_chance is not None:
        own["predict.min_top_over_chance"] = Fact(record.min_top_over_chance, f"release {record.release_id}")
    if all(path in own for path in NEEDED):
        return own
    return joined(
        own, _kept(record, [*NEEDED, *HABITS, *(path for path in own if path.startswith("crops."))], settings)
    )


def _kept(record: ReleaseRecord, paths: Sequence[str], settings: Settings) -> dict[str, Fact]:
    params = read_kept(record.run_id, PARAMS, settings=settings)
    if not params:
        return {}
    where = f"runs/{record.run_id}/{PARAMS}"
    digest = digest_of_json({name: section for name, section in params.items() if name != "compute"})
    if digest != record.params_digest:
        remedy = "Find out who changed it, or restore the bucket's own version of it."
        problem = Problem(where, f"parameters of digest {digest}", f"digest {record.params_digest}", remedy)
        raise IntegrityError("The kept parameters are not those that the release was made with.", [problem])
    return run_facts(params, where, paths)


def serving_of(facts: Facts, extractor: Extractor | Profile, today: Today, needed: Sequence[str] = NEEDED) -> Serving:
    """Return how a model is served, with the program's choice on this machine made; see `Serving.of`."""
    serving = Serving.of(extractor.config.get("crops") or {}, facts, today, needed)
    runtime = resolve_runtime(serving.compute)
    precision = "float32" if runtime.low_precision is None else "bfloat16"
    chosen = serving.compute.model_copy(update={"precision": precision, "attention": runtime.attention})
    return replace(serving, compute=chosen)


def tell(notes: Sequence[str]) -> None:
    """Show what was not used or is not recorded, where a step's other messages go."""
    for note in notes:
        sys.stderr.write(f"Note: {note}\n")


def require_fitting(batches: Sequence[BatchFolder], extractor: Extractor | Profile, name: str) -> list[str]:
    """Refuse batches whose pixels were prepared in another way than those that an extractor was trained on.

    Returns:
        Sentences about what no record tells.

    Raises:
        ConfigError: A plate was prepared in another way.
        IntegrityError: A plate store is damaged.
    """
    return require_prepared(prepared(batches), extractor.config.get(TRAINED) or {}, name)
