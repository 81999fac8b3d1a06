"""One adaptation from start to end: the ladder, the training, and every candidate's answers, written as one folder."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
from numpy.typing import NDArray

from coda.adaptation.candidates import Candidate, candidates_for, write_candidates
from coda.adaptation.coda import adapt_extractor
from coda.adaptation.folder import write_answers, write_drift, write_log
from coda.adaptation.ladder import choose_rung
from coda.adaptation.serving import Way, serve
from coda.config.params import Params
from coda.errors import ConfigError, IntegrityError, Problem
from coda.networks.alignment import TokenStatistics
from coda.networks.extractor import Extractor, save_extractor
from coda.networks.head import Head
from coda.networks.state import AdaptationState, save_state
from coda.plates.fieldset import FieldSet
from coda.training.checkpoint import Checkpoints
from coda.training.progress import Report


@dataclass(frozen=True)
class FrozenHead:
    """A head of the source release.

    Attributes:
        head: The network, in evaluation mode; it is read and never changed.
        source: Statistics of the tokens it was trained on.
        digest: Digest of its model folder.
    """

    head: Head
    source: TokenStatistics
    digest: str


@dataclass(frozen=True)
class Base:
    """The source release that every adaptation starts from.

    Attributes:
        extractor: What serves without adaptation.
        extractor_digest: Digest of its model folder.
        state: What adaptation continues from; changed in place by it.
        heads: Alignment that a head was trained with -> head.
        line: Digest of the pretrained extractor of this line, for the new extractor's provenance.
    """

    extractor: Extractor
    extractor_digest: str
    state: AdaptationState
    heads: Mapping[Literal["none", "standardise"], FrozenHead]
    line: str = field(default="")


def adapt_and_serve(
    base: Base,
    fields: FieldSet,
    is_batch: NDArray[np.bool_],
    out: Path,
    params: Params,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Candidate]:
    """Adapt the extractor to a batch and write the candidates folder.

    Args:
        base: The source release.
        fields: Accepted fields of the batch and of archived batches of its source, without labels.
        is_batch: Which fields belong to the batch (the others are archived ones).
        out: Candidates folder; see docs/architecture.md.
        params: Parameters.
        seed: Seed of the run.
        checkpoints: Where to keep checkpoints.
        report: Called as training goes.
        should_stop: Asked before every iteration.

    Returns:
        The candidates, from simple to involved.

    Raises:
        ConfigError: A head that a candidate needs is not in the release, or the fields cannot be used.
        IntegrityError: A head changed while the extractor was adapted.
        TransientError: It was asked to stop; started again, it goes on.
    """
    rung = choose_rung(fields.table, min_pairable_share=params.adaptation.min_pairable_share)
    candidates = candidates_for(params.adaptation.candidates, rung.method)
    _require_heads(candidates, base)
    before = {str(name): weights_digest(frozen.head) for name, frozen in base.heads.items()}
    services = {"base": serve(base.extractor, _ways(candidates, base, "base"), fields, params)}
    digests, trained = {"base": base.extractor_digest}, None
    if any(candidate.extractor == "adapted" for candidate in candidates):
        trained = adapt_extractor(
            base.state, fields, params, rung, seed=seed, checkpoints=checkpoints, report=report, should_stop=should_stop
        )
        origin = {"adapted_from": base.extractor_digest, "line": base.line or base.extractor_digest}
        digests["adapted"] = save_extractor(out / "extractor", trained.state.teacher, {**origin, "method": rung.method})
        save_state(out / "state", trained.state)
        ways = _ways(candidates, base, "adapted")
        services["adapted"] = serve(trained.state.teacher, ways, fields, params)
    _require_unchanged(before, base)
    alarms = tuple(f"While training: {alarm}." for alarm in trained.alarms) if trained else ()
    final = [
        candidate.model_copy(
            update={
                "extractor_digest": digests[candidate.extractor],
                "head_digest": base.heads[candidate.head].digest,
                "alarms": alarms if candidate.extractor == "adapted" else (),
            }
        )
        for candidate in candidates
    ]
    classes = {str(name): frozen.head.classes for name, frozen in base.heads.items()}
    write_answers(out, final, services, fields, is_batch, classes)
    write_log(out, rung, trained)
    reference = base.heads.get("none") or next(iter(base.heads.values()))
    write_drift(out, fields, services, reference.source)
    write_candidates(out, final)
    return final


def weights_digest(head: Head) -> str:
    """Return the SHA-256 of a head's weights as they are in memory now."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(weights)).hexdigest()


def _ways(candidates: Sequence[Candidate], base: Base, extractor: str) -> list[Way]:
    return [
        Way(c.name, c.alignment, base.heads[c.head].head, base.heads[c.head].source)
        for c in candidates
        if c.extractor == extractor
    ]


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


def _require_unchanged(before: Mapping[str, str], base: Base) -> None:
    problems = [
        Problem(f"head {name!r}", f"weights {weights_digest(frozen.head)}", f"weights {before[name]}", "Report this.")
        for name, frozen in base.heads.items()
        if weights_digest(frozen.head) != before[name] or any(p.requires_grad for p in frozen.head.parameters())
    ]
    if problems:
        raise IntegrityError("A frozen head changed during adaptation; nothing of this run may be used.", problems)
