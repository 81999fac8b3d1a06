"""DINOv2 as a method: DINO's, with a state and a step of its own; it adapts by pairs and by single images."""

from pathlib import Path

from coda.config.params import Params
from coda.training.methods.dino.method import DinoMethod
from coda.training.methods.dinov2.objective import Dinov2Objective
from coda.training.methods.dinov2.state import KIND, Dinov2State, load_state, new_state


class Dinov2Method(DinoMethod):
    """See `coda.training.methods.base.SslMethod`; budgets and head are DINO's sections."""

    name, kind, objective = "dinov2", KIND, Dinov2Objective

    def new_state(self, params: Params, *, seed: int) -> Dinov2State:
        """Return DINO's state and patch heads."""
        return new_state(params, seed=seed)

    def load_state(self, folder: Path, expected_digest: str | None = None) -> Dinov2State:
        """Verify and rebuild what `save_state` wrote."""
        return load_state(folder, expected_digest)


METHOD = Dinov2Method()
