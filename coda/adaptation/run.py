"""One adaptation from start to end: pairing, training, and every candidate's answers, written as one folder."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
from numpy.typing import NDArray

from coda.adaptation.base import Base, FrozenHead, Incumbent, heads_of, with_incumbent
from coda.adaptation.candidates import (
    ADAPTED,
    INCUMBENT,
    UNTOUCHED,
    Candidate,
    candidates_for,
    write_candidates,
)
from coda.adaptation.coda import Adapted, adapt_extractor
from coda.adaptation.folder import write_answers, write_drift, write_log
from coda.adaptation.pairing_policy import AdaptedExtractor, pairings_for
from coda.adaptation.references import pixel_statistics, reference_features, write_references
from coda.adaptation.serving import Service, Way, serve
from coda.config.params import Params
from coda.contracts.recipe import CLASSICAL
from coda.errors import ConfigError, IntegrityError, Problem
from coda.networks.classical_head import ClassicalHead
from coda.networks.extractor import save_extractor
from coda.networks.head import Head
from coda.networks.profile import Profile
from coda.plates.stored import Fields
from coda.training.checkpoint import Checkpoints
from coda.training.methods.registry import method_of
from coda.training.profiles import measured, profiles
from coda.training.progress import Report
from coda.training.split import group_names

PREFIX: Mapping[AdaptedExtractor, str] = {"adapted": "", "adapted_oda": "oda-"}
"""Prefix of the checkpoints of each extractor that is adapted: one run may adapt two, one after the other."""


def adapt_and_serve(
    base: Base,
    fields: Fields,
    is_batch: NDArray[np.bool_],
    out: Path,
    params: Params,
    *,
    seed: int,
    incumbent: Incumbent | None = None,
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    should_stop: Callable[[], bool] | None = None,
    models: Path | None = None,
    features: Path | None = None,
) -> list[Candidate]:
    """Adapt the extractor to a batch and write the candidates folder.

    Args:
        base: The source release; what is adapted is always its extractor.
        fields: Accepted fields of the batch and of archived batches of its source, without labels.
        is_batch: Which fields belong to the batch (the others are archived ones).
        out: Candidates folder; see docs/architecture.md.
        params: Parameters.
        seed: Seed of the run.
        incumbent: What serves the source already, if it has a release of its own.
        checkpoints: Where to keep checkpoints.
        report: Called as training goes.
        should_stop: Asked before every iteration.
        models: Folder for the extractors that are adapted, which only registering reads; `out` when not given.
        features: Folder for features, which gate and report read and nobody else; `out` when not given.

    Returns:
        The candidates, from simple to involved.

    Raises:
        ConfigError: A head that a candidate needs is not in the release, or the fields cannot be used.
        IntegrityError: A head changed while the extractor was adapted.
        TransientError: It was asked to stop; started again, it resumes.
    """
    pairings = pairings_for(fields.table, params.adaptation, params.pairs)
    offered = candidates_for(known_ways(params.adaptation.candidates, base), pairings["adapted"].method)
    _require_heads(offered, base)
    candidates = with_incumbent(offered, base, incumbent)
    heads = heads_of(candidates, base, incumbent)
    watched = {str(name): frozen for name, frozen in base.heads.items()}
    watched |= {INCUMBENT: incumbent.head} if incumbent else {}
    before = {name: weights_digest(frozen.head) for name, frozen in watched.items()}
    measures = [pixel_statistics, *([profiles] if any(item.extractor == CLASSICAL for item in candidates) else [])]
    pixels, *profile = measured(fields, measures)  # one pass over the pixels
    services = _serve_present(candidates, heads, base, incumbent, fields, params, *profile)
    digests = dict.fromkeys(UNTOUCHED, base.extractor_digest)
    digests |= {INCUMBENT: incumbent.extractor_digest} if incumbent else {}
    origin = {"adapted_from": base.extractor_digest, "line": base.line or base.extractor_digest}
    trained: dict[AdaptedExtractor, Adapted] = {}
    wanted = [name for name in pairings if any(candidate.extractor == name for candidate in candidates)]
    for name in wanted:
        # every one starts from the source release, so all but the last leave its state as it is
        state = base.state if name == wanted[-1] else deepcopy(base.state)
        own = replace(checkpoints, prefix=PREFIX[name]) if checkpoints else None
        trained[name] = adapt_extractor(
            state, fields, params, pairings[name], seed=seed, heads=base.heads,
            checkpoints=own, report=report, should_stop=should_stop,
        )  # fmt: skip
        extractor, whole = ((models or out) / folder for folder in ADAPTED[name])
        digests[name] = save_extractor(extractor, state.extractor, {**origin, "method": pairings[name].method})
        method_of(state.method).save_state(whole, state)
        ways, pool = _ways(candidates, heads, name), base.extractor.pool
        services[name] = serve(state.extractor, ways, fields, params, pool=pool)
    _require_unchanged(before, watched)
    alarms = {str(name): result.alarms for name, result in trained.items()}
    final = _described(candidates, heads, digests, alarms, base.extractor.pool)
    write_answers(
        out, final, services, fields, is_batch, {name: frozen.head.classes for name, frozen in heads.items()},
        features=features or out, groups=group_names(fields.table[is_batch], params.alignment.by),
    )  # fmt: skip
    references = reference_features(fields, base.extractor.config, params, seed=seed, pixels=pixels)
    write_references(features or out, references)
    write_log(out, pairings, trained)
    _write_drift(out, fields, services, base, incumbent)
    write_candidates(out, final)
    return final


def _serve_present(
    candidates: Sequence[Candidate],
    heads: Mapping[str, FrozenHead],
    base: Base,
    incumbent: Incumbent | None,
    fields: Fields,
    params: Params,
    profile: NDArray[np.float32] | None = None,
) -> dict[str, Service]:
    """Serve with what is there before any adaptation: the base's extractor, the profile, and the incumbent's own.

    The features of all, the adapted ones' too, are what the base was trained for: the gate compares like with like.
    """
    pool = base.extractor.pool
    services = {"base": serve(base.extractor, _ways(candidates, heads, "base"), fields, params, pool=pool)}
    if ways := _ways(candidates, heads, CLASSICAL):
        services[CLASSICAL] = serve(Profile(base.extractor.config), ways, fields, params, profiles=profile)
    ways = _ways(candidates, heads, INCUMBENT)
    if incumbent is not None and ways:
        made = incumbent.serving or params
        services[INCUMBENT] = serve(incumbent.extractor, ways, incumbent.fields or fields, made, pool=pool)
    return services


def _described(
    candidates: Sequence[Candidate],
    heads: Mapping[str, FrozenHead],
    digests: Mapping[str, str],
    alarms: Mapping[str, Sequence[str]],
    pool: Literal["cls", "mean"],
) -> list[Candidate]:
    return [
        candidate.model_copy(
            update={
                "extractor_digest": digests[candidate.extractor],
                "head_digest": heads[candidate.name].digest,
                "pool": pool,
                "alarms": tuple(f"While training: {alarm}." for alarm in alarms.get(candidate.extractor, ())),
            }
        )
        for candidate in candidates
    ]


def _write_drift(
    out: Path, fields: Fields, services: Mapping[str, Service], base: Base, incumbent: Incumbent | None
) -> None:
    reference = base.heads.get("none") or next(iter(base.heads.values()))
    sources = dict.fromkeys(services, reference.source)
    if CLASSICAL in services:
        sources[CLASSICAL] = base.heads["classical"].source
    if incumbent is not None:
        # it may be of another line of extractors, whose tokens have their own source statistics
        sources[INCUMBENT] = incumbent.head.source
    write_drift(out, fields, services, sources)


def weights_digest(head: Head | ClassicalHead) -> str:
    """Return the SHA-256 of a head's weights as they are in memory now."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(weights)).hexdigest()


def _ways(candidates: Sequence[Candidate], heads: Mapping[str, FrozenHead], extractor: str) -> list[Way]:
    return [
        Way(c.name, c.alignment, heads[c.name].head, heads[c.name].source)
        for c in candidates
        if c.extractor == extractor
    ]


def known_ways(names: Sequence[str], base: Base) -> list[str]:
    """Return the ways that a release can be asked for: one of before decision 0046 has no classical head."""
    return [name for name in names if name != CLASSICAL or CLASSICAL in base.heads]


def _require_heads(candidates: Sequence[Candidate], base: Base) -> None:
    problems = [
        Problem(
            f"candidate {candidate.name}",
            f"heads for {', '.join(base.heads) or 'nothing'} in the release",
            f"a head trained with alignment {candidate.head!r}",
            "Drop the candidate from adaptation.candidates, or train the source with head.alignments that include it.",
        )
        for candidate in candidates
        if candidate.head not in base.heads
    ]
    if problems:
        raise ConfigError("The source release lacks a head.", problems)


def _require_unchanged(before: Mapping[str, str], heads: Mapping[str, FrozenHead]) -> None:
    problems = [
        Problem(f"head {name!r}", f"weights {weights_digest(frozen.head)}", f"weights {before[name]}", "Report this.")
        for name, frozen in heads.items()
        if weights_digest(frozen.head) != before[name] or any(p.requires_grad for p in frozen.head.parameters())
    ]
    if problems:
        raise IntegrityError("A frozen head changed during adaptation; nothing of this run may be used.", problems)
