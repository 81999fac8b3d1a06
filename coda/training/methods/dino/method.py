"""DINO as a method: pretraining on pairs or single images; adaptation is CODA or ODA (paper section 3)."""

from pathlib import Path

from coda.config.params import DinoOptimizerConfig, Params
from coda.errors import ConfigError, Problem
from coda.networks.dino_head import SHAPE
from coda.training.methods.base import SslResult, SslTask, Stage
from coda.training.methods.dino.objective import DinoObjective
from coda.training.methods.dino.state import KIND, DinoState, load_state, new_state, save_state
from coda.training.methods.dino.training import train_dino
from coda.training.methods.fixed import refuse_other_than


class DinoMethod:
    """See `coda.training.methods.base.SslMethod`."""

    name, kind = "dino", KIND
    objective: type[DinoObjective] = DinoObjective

    def new_state(self, params: Params, *, seed: int) -> DinoState:
        """Return student and teacher with the same first weights, and their heads."""
        return new_state(params, seed=seed)

    def save_state(self, folder: Path, state: DinoState) -> str:
        """Write both networks, both heads, the centre and, where it is kept, the optimizer's state."""
        return save_state(folder, state)

    def load_state(self, folder: Path, expected_digest: str | None = None) -> DinoState:
        """Verify and rebuild what `save_state` wrote, in any version."""
        return load_state(folder, expected_digest)

    def optimization(self, params: Params, stage: Stage) -> DinoOptimizerConfig:
        """Return ``pretrain`` or ``adaptation.budget``."""
        return params.pretrain if stage == "pretrain" else params.adaptation.budget

    def prepare_to_adapt(self, state: DinoState, params: Params) -> None:
        """Refuse another DINO head than the state's; keep or drop the optimizer's state as the parameters say."""
        own = state.student_head.config
        refuse_other_than({f"dino.{name}": (own[name], getattr(params.dino, name)) for name in SHAPE})
        if not params.adaptation.carry_optimizer:
            state.moments = {}
        elif not state.moments:
            remedy = "Pretrain with pretrain.keep_optimizer=true, or set adaptation.carry_optimizer=false."
            found, expected = "a state without the optimizer's own", "the optimizer's moments"
            problem = Problem("adaptation.carry_optimizer", found, expected, remedy)
            raise ConfigError("The source release's state holds no optimizer state to continue with.", [problem])

    def train(self, state: DinoState, params: Params, task: SslTask) -> SslResult:
        """Train student and teacher; see `train_dino`."""
        own = params.adaptation if task.stage == "adapt" else None  # pretraining reads no section of adaptation
        return train_dino(
            task.fields, params, self.optimization(params, task.stage),
            state=state, seed=task.seed, pairs=task.pairs, anchors=task.anchors,
            dino_head=own.dino_head if own else "trained", carry_centre=own.carry_centre if own else True,
            hooks=task.hooks, described=task.described, objective=self.objective,
            keep_moments=own.carry_optimizer if own else params.pretrain.keep_optimizer,
            checkpoints=task.checkpoints, report=task.report, should_stop=task.should_stop,
        )  # fmt: skip


METHOD = DinoMethod()
