"""The DINO training of pretraining and adaptation alike (paper section 4)."""

from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from coda.config.params import DinoOptimizerConfig, Pairs, Params, Pretrain
from coda.networks.extractor import require_channels
from coda.networks.runtime import resolve_runtime
from coda.plates.stored import Fields
from coda.training.blindness import require_blind
from coda.training.engine import Running, fields_digest, fingerprint, run, tensors_digest
from coda.training.hooks import Hooks
from coda.training.images import image_source
from coda.training.methods.base import SslResult
from coda.training.methods.dino.objective import DinoHeadMode, DinoObjective
from coda.training.methods.dino.state import DinoState
from coda.training.pairs import PairSampler
from coda.training.schedules import length_of


def train_dino(
    fields: Fields,
    params: Params,
    budget: DinoOptimizerConfig,
    *,
    state: DinoState,
    seed: int,
    pairs: Pairs | None = None,
    anchors: NDArray[np.bool_] | None = None,
    dino_head: DinoHeadMode = "trained",
    carry_centre: bool = True,
    hooks: Hooks | None = None,
    described: object = None,
    keep_moments: bool = False,
    objective: type[DinoObjective] = DinoObjective,
    **running: Unpack[Running],
) -> SslResult:
    """Train student and teacher on unlabelled fields; `state` is changed in place.

    All schedules and the optimizer start anew, as in the method, whether the state is fresh or handed over. A run
    that was stopped resumes from its newest checkpoint and is, on a CPU, bit-identical to one that was not.

    Args:
        fields: Images with the extractor's stains, in its order; in memory, or left in their plate stores.
        params: Crops, DINO head, pairs and compute are read from here.
        budget: Length, rates and the teacher's schedules: ``params.pretrain`` or ``params.adaptation.budget``.
        state: What to start from.
        seed: Of anchors, partners, views and drop path.
        pairs: Pairing in place of ``params.pairs``; with by='none' it is plain DINO (ODA).
        anchors: Fields that may start a pair; all when not given. All fields may be partners.
        dino_head: What of the DINO heads learns; with 'frozen', only the extractor does.
        carry_centre: Start from the state's centre (else from 0, as the released code does).
        hooks: Which weights learn, what is added to the loss, and who watches.
        described: What the hooks are, as JSON, for the name of the experiment that checkpoints belong to.
        objective: The step: DINO's, or that of a method built on it.
        keep_moments: Leave the optimizer's moments in the state, for a training that continues from it.
        **running: As every training takes them, see `coda.training.engine.Running`.

    Raises:
        ConfigError: Images do not fit the network or the views, the table holds more than the field index, nothing can
            be paired, the checkpoint is another experiment's, or the loss is no longer a number.
        TransientError: The run was asked to stop; started again, it resumes from the checkpoint.
    """
    require_channels(state.student, fields.channels, "fields")
    require_blind(fields.table)
    pairs = pairs or params.pairs
    sampler = PairSampler(fields.table, pairs, anchors)
    length = length_of(budget, sampler.fields_per_epoch)
    if not carry_centre:
        state.centre = torch.zeros_like(state.centre)
    options = {
        "seed": seed, "pairs": pairs.model_dump(), "dino_head": dino_head, "hooks": described,
        "pool": state.student.pool,
        "anchors": anchors.tolist() if anchors is not None else None, "moments": tensors_digest(state.moments),
    }  # fmt: skip
    sections = params.model_dump(mode="json", include=set(objective.sections))
    identity = fingerprint(
        sections, budget.model_dump(), options, fields_digest(fields), tensors_digest(state.state_dict())
    )
    runtime = resolve_runtime(params.compute)
    images = image_source(fields, runtime.device, params.compute.images)
    steps = objective(
        images, params, budget,
        state=state, sampler=sampler, length=length, seed=seed, dino_head=dino_head, hooks=hooks,
        keep_moments=keep_moments,
    )  # fmt: skip
    result = run(
        steps, length=length, budget=budget, identity=identity, flops_per_sample=steps.work(), **running,
        rate=f"{'pretrain' if isinstance(budget, Pretrain) else 'adaptation.budget'}.learning_rate",
    )  # fmt: skip
    steps.finish()
    return SslResult(**vars(result), state=state, pairs=sampler.report)
