"""The masked autoencoder as a method: Dual-model-MAE, adapted as ODA-MAE (paper section 4). It knows no pairs."""

from pathlib import Path

from coda.config.params import OptimizerConfig, Params
from coda.training.methods.base import SslResult, SslTask, Stage
from coda.training.methods.fixed import refuse_other_than
from coda.training.methods.mae.state import KIND, MaeState, load_mae_state, new_mae_state, save_mae_state
from coda.training.methods.mae.training import train_mae

SHAPE = {"decoder_width": "hidden_dim", "decoder_depth": "depth", "decoder_heads": "num_heads"}
"""Parameters of `mae` that the decoder is built from -> their names in its config."""


class MaeMethod:
    """See `coda.training.methods.base.SslMethod`."""

    name, kind = "mae", KIND

    def new_state(self, params: Params, *, seed: int) -> MaeState:
        """Return an encoder as every extractor starts, and a decoder at random."""
        return new_mae_state(params, seed=seed)

    def save_state(self, folder: Path, state: MaeState) -> str:
        """Write encoder and decoder."""
        return save_mae_state(folder, state)

    def load_state(self, folder: Path, expected_digest: str | None = None) -> MaeState:
        """Verify and rebuild what `save_state` wrote, in any version."""
        return load_mae_state(folder, expected_digest)

    def optimization(self, params: Params, stage: Stage) -> OptimizerConfig:
        """Return ``mae.pretrain`` or ``mae.adaptation``."""
        return params.mae.pretrain if stage == "pretrain" else params.mae.adaptation

    def prepare_to_adapt(self, state: MaeState, params: Params) -> None:
        """Refuse parameters of another decoder than the state's: they would be ignored."""
        own = state.decoder.config
        refuse_other_than({f"mae.{name}": (own[key], getattr(params.mae, name)) for name, key in SHAPE.items()})

    def train(self, state: MaeState, params: Params, task: SslTask) -> SslResult:
        """Train encoder and decoder on single images; see `train_mae`."""
        return train_mae(
            task.fields, params, self.optimization(params, task.stage), state=state, seed=task.seed,
            anchors=task.anchors, checkpoints=task.checkpoints, report=task.report, should_stop=task.should_stop,
        )  # fmt: skip


METHOD = MaeMethod()
