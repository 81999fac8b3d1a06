"""The projection head of DINO: pooled token to logits over prototypes (paper section 4; DINO's head)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from coda.config.params import Dino
from coda.networks.batch_norm import SharedBatchNorm
from coda.networks.weights import seeded

SHAPE = ("prototypes", "hidden_dim", "bottleneck_dim", "batch_norm")
"""Parameters of `dino` that the head is built from."""


class DinoHead(nn.Module):
    """MLP, L2 normalisation, and a bias-free linear layer whose weights have norm 1.

    The last layer is normalised in the forward pass: its norm is fixed to 1 in the method, so that torch's
    weight-norm reparametrisation would only add a parameter that is never trained.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the head from width, hidden_dim, bottleneck_dim, prototypes and batch_norm."""
        super().__init__()
        self.config = dict(config)
        hidden, bottleneck = config["hidden_dim"], config["bottleneck_dim"]
        layers: list[nn.Module] = []
        for inputs in (config["width"], hidden):
            layers.append(nn.Linear(inputs, hidden))
            if config["batch_norm"]:
                layers.append(SharedBatchNorm(hidden))
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = nn.Linear(bottleneck, config["prototypes"], bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (crops, width) into logits (crops, prototypes), each between -1 and 1."""
        directions = F.normalize(self.mlp(features), dim=-1)
        return F.linear(directions, F.normalize(self.last_layer.weight, dim=-1))


def new_dino_head(dino: Dino, width: int, *, seed: int) -> DinoHead:
    """Return a DINO head with seeded first weights."""
    shape = dino.model_dump(include=set(SHAPE))
    with seeded(seed):
        return DinoHead({**shape, "width": width})
