"""The classifier of the supervised system: one linear layer on the extractor's pooled token (paper section 4)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coda.config.params import Params
from coda.config.recorded import TRAINED
from coda.networks import artifact
from coda.networks.extractor import Extractor, pool_tokens, require_kind
from coda.networks.made_with import made_with
from coda.networks.rebuild import rebuild
from coda.networks.weights import initialise_xavier, seeded


class LinearHead(nn.Module):
    """Classifies the class token, or the mean of all tokens.

    Attributes:
        config: ``width``, ``classes``, ``pool`` ('cls' or 'mean'), ``channels``, ``crops``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the layer.

        Raises:
            ValueError: ``pool`` is neither of the two.
        """
        super().__init__()
        self.config = dict(config)
        if config["pool"] not in ("cls", "mean"):
            message = f"pool {config['pool']!r} is neither 'cls' nor 'mean'"
            raise ValueError(message)
        self.classifier = nn.Linear(config["width"], len(config["classes"]))

    @property
    def classes(self) -> tuple[str, ...]:
        """Mechanisms, in the order of the logits."""
        return tuple(self.config["classes"])

    @property
    def alignment(self) -> str:
        """What was done to the tokens it was trained on: nothing."""
        return "none"

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens (batch, 1 + patches, width) into logits (batch, classes)."""
        return self.classifier(pool_tokens(tokens, self.config["pool"]))  # type: ignore[no-any-return]


def new_linear_head(params: Params, extractor: Extractor, classes: tuple[str, ...], *, seed: int) -> LinearHead:
    """Return a linear head for an extractor, with seeded first weights, on the CPU; it pools as the extractor does."""
    config = {
        "kind": "linear_head",
        "width": extractor.width,
        "classes": list(classes),
        "pool": extractor.pool,
        "channels": list(extractor.channels),
        "crops": params.crops.model_dump(mode="json"),
        "initial_weights": f"random:{seed}",
        TRAINED: made_with(params),
    }
    with seeded(seed):
        head = LinearHead(config)
        initialise_xavier(head)
    return head


def save_linear_head(folder: Path, head: LinearHead, provenance: Mapping[str, Any] | None = None) -> str:
    """Write a model folder for a linear head and return its digest."""
    config = {**head.config, **({"provenance": dict(provenance)} if provenance else {})}
    return artifact.save(folder, head.state_dict(), config)


def load_linear_head(folder: Path, expected_digest: str | None = None) -> LinearHead:
    """Verify a model folder and rebuild its linear head, frozen, in evaluation mode on the CPU.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones, or describe no network of ours.
        ConfigError: It holds another kind of network.
    """
    tensors, config = artifact.load(folder, expected_digest)
    require_kind(config, "linear_head", folder)
    return rebuild(LinearHead, config, tensors, folder).requires_grad_(requires_grad=False).eval()
