"""Adapt: a validated batch and its archive into the candidates that could serve it."""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coda.adaptation.answers import write_answered
from coda.adaptation.archive_sample import sample_archive
from coda.adaptation.base import Base, Incumbent
from coda.adaptation.candidates import Candidate, read_candidates
from coda.adaptation.changed import write_changed
from coda.adaptation.folder import write_served_as
from coda.adaptation.run import adapt_and_serve
from coda.config.params import Params
from coda.config.recorded import TRAINED, Fact, Today, settled, told
from coda.config.served_params import LEAST, NEEDED
from coda.contracts.release import ReleaseRecord
from coda.errors import ConfigError, Problem
from coda.networks.made_with import made_with
from coda.networks.runtime import set_threads
from coda.plates.dataset import BatchFolder, channels_unread, ingested_batches, open_batches, open_fields
from coda.plates.preparation import prepared, record_of
from coda.settings import Settings
from coda.steps.keeping import kept_checkpoints, stopping_on_sigterm
from coda.steps.progress_bar import shown
from coda.steps.recorded_serving import facts_of, named, release_facts, require_fitting, serving_of, tell
from coda.steps.source_release import default_release, fetch_base, fetch_incumbent, own_release
from coda.steps.torchrun import processes_to_start, run_in_processes
from coda.storage.plate_stores import DataStore
from coda.training.distributed import world
from coda.training.images import place_fields
from coda.training.methods.registry import method_of
from coda.training.split import batch_names

BASE_RELEASE = "base_release.json"
"""File of the candidates folder: the release that the candidates were made from."""

INCUMBENT_RELEASE = "incumbent_release.json"
"""File of the candidates folder: the release that served the source before; absent for a source without one."""


def adapt(
    dataset: Path,
    archive: Path,
    out: Path,
    *,
    params: Params,
    settings: Settings,
    run_id: str,
    models: Path | None = None,
    features: Path | None = None,
) -> list[Candidate]:
    """Adapt the default release's extractor to a batch without labels, and lay out every way of serving it.

    What serves the source already, if it has a release of its own, is one of these ways: it predicts the batch like the
    others, so that the gate can compare, and nothing is adapted from it.

    Args:
        dataset: Dataset folder with the new batch, validated.
        archive: Dataset folder with earlier accepted batches of the same source; it may be empty or absent.
        out: Candidates folder to write (docs/architecture.md), with ``base_release.json``, the release it started
            from, and ``incumbent_release.json``, the source's own one.
        params: Parameters. What contradicts the record of the release that is adapted is refused.
        settings: Where the registry, the release log and checkpoints are.
        run_id: The run; started again under the same name it resumes from its newest checkpoint.
        models: Folder for the adapted extractors, which weigh far more than the rest; `out` when not given.
        features: Folder for features, which gate and report alone read; `out` when not given.

    Returns:
        The candidates, from simple to involved.

    Raises:
        ConfigError: There is no source release, nothing in the batch may be used, or the parameters or the preparation
            of the batch contradict what the release was made with.
        IntegrityError: A model's bytes are not the recorded ones, or a frozen head changed.
        TransientError: A service is away, or the step was asked to stop.
    """
    count = _processes(params)
    if count > 1:
        paths = {"dataset": dataset, "archive": archive, "out": out}
        paths |= {name: path for name, path in (("models", models), ("features", features)) if path}
        run_in_processes("adapt", paths, count, params=params, settings=settings, run_id=run_id)
        return read_candidates(out)
    set_threads(params.compute)
    stores = DataStore(settings)
    batches = ingested_batches(dataset, stores)
    own = {batch.batch_id for batch in batches}
    earlier = [batch for batch in open_batches(archive, stores) if batch.batch_id not in own]
    record = default_release(settings)
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="coda-base-") as work,
        kept_checkpoints(settings, run_id, "adapt") if world().first else nullcontext() as checkpoints,
        stopping_on_sigterm() as should_stop,
        shown("Adapting", params.compute) if world().first else nullcontext() as report,
    ):
        base = fetch_base(record, Path(work), settings)
        params, served_as = _as_made(record, base, [*batches, *earlier], params)
        stored = open_fields([*batches, *earlier], base.extractor.channels, params.crops.centre)
        is_batch = np.isin(batch_names(stored.table), sorted(own))
        if not is_batch.any():
            remedy = "Read the quality report: a refused batch is not adapted to."
            problem = Problem(str(dataset), f"{len(batches)} batch(es) without an accepted field", "a field", remedy)
            raise ConfigError("There is nothing to adapt to.", [problem])
        chosen = sample_archive(stored.table, is_batch, params.adaptation.archive_fields, seed=params.seed)
        write_answered(out, stored.take(is_batch))
        fields, is_batch = place_fields(stored.take(chosen), params.compute.images), is_batch[chosen]
        record.write(out / BASE_RELEASE)
        write_served_as(out, served_as)
        incumbent = _incumbent([*batches, *earlier], chosen, base, Path(work), out, params, settings, run_id)
        candidates = adapt_and_serve(
            base, fields, is_batch, out, params, seed=params.seed, incumbent=incumbent,
            checkpoints=checkpoints, report=report, should_stop=should_stop, models=models, features=features,
        )  # fmt: skip
        write_changed(out, batches, earlier, fields, chosen, features=features or out)
        return candidates


def adapt_in_processes(**arguments: Any) -> dict[str, float]:
    """Be one of several processes of `adapt`, which reads the candidates from the folder."""
    return {"candidates": float(len(adapt(**arguments)))}


def _processes(params: Params) -> int:
    """Return how many processes adapt together."""
    own = params.adaptation
    if own.anchor.features or own.diversity.strength:
        return 1  # these terms are moments of a mini-batch, which the share of one process has no part in
    batch = method_of(params.ssl.method).optimization(params, "adapt").batch_size
    return processes_to_start(params.compute, gcd(batch, own.source_batch_size or 0))


def _as_made(
    record: ReleaseRecord, base: Base, batches: Sequence[BatchFolder], params: Params
) -> tuple[Params, dict[str, Fact]]:
    """Return the run's parameters with what the base was made with in their place, and these facts alone.

    An extractor that is adapted from a base without a record gets one: what this run measured it with.
    """
    name = named(record.extractor)
    models = [(name, base.extractor.config), (f"the state of {name}", base.state.extractor.config)]
    models += [(f"the head on {alignment!r} of {name}", frozen.head.config) for alignment, frozen in base.heads.items()]
    facts, today = facts_of(models), Today.of(params)
    needed = [path for path in NEEDED if path != LEAST]
    values, untold = told(facts, today, needed)
    unread = channels_unread(batches, base.extractor.channels)
    tell([*untold, *require_fitting(batches, base.extractor, name), *unread])
    # which method it goes on with says the state itself, whoever made it
    method = {"ssl.method": Fact(base.state.method, f"config.json of the state of {name}")}
    settled_params = settled({**facts, **method}, today)
    for network in (base.state.learner, base.state.extractor):
        if TRAINED not in network.config:
            network.config[TRAINED] = {**made_with(settled_params), **record_of(prepared(batches))}
    where = "the parameters of the run"
    return settled_params, {**{path: Fact(value, where) for path, value in values.items()}, **facts}


def _incumbent(
    batches: Sequence[BatchFolder],
    chosen: NDArray[np.bool_],
    base: Base,
    work: Path,
    out: Path,
    params: Params,
    settings: Settings,
    run_id: str,
) -> Incumbent | None:
    """Fetch what serves the source of these batches already, and note it in the candidates folder.

    It is measured as its own release is served, whatever the base and the run's parameters are.
    """
    path = out / INCUMBENT_RELEASE
    record = own_release(batches[0].manifest.source, settings, run_id=run_id)
    if record is None:
        path.unlink(missing_ok=True)  # an earlier attempt's
        return None
    record.write(path)
    incumbent = fetch_incumbent(record, base, work, settings)
    facts = release_facts(record, incumbent.extractor, incumbent.head.head, settings)
    # the run's parameters were stated for the base; of the incumbent they tell only what no record does
    untold = {name: "the parameters of the run" for name in NEEDED if name not in facts}
    serving = serving_of(facts, incumbent.extractor, Today(params, untold))
    tell([*serving.notes, *require_fitting(batches, incumbent.extractor, named(record.extractor))])
    stains, centre = incumbent.extractor.channels, serving.crops.centre
    if (stains, centre) == (base.extractor.channels, params.crops.centre):
        return replace(incumbent, serving=serving)
    own = open_fields(batches, stains, centre).take(chosen)
    fields = place_fields(own, params.compute.images)
    return replace(incumbent, serving=serving, fields=fields)
