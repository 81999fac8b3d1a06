"""The classical head: one linear layer on a field's profile, kept and verified as every head is (decision 0046)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from coda.config.params import Params
from coda.config.recorded import TRAINED
from coda.config.served_params import groups_of
from coda.networks.extractor import Extractor
from coda.networks.made_with import made_with
from coda.networks.profile import VERSION, Profile

READS = "reads"
"""Key of a head's config: what it reads in place of the extractor's tokens; absent from heads that read those."""


class ClassicalHead(nn.Module):
    """Logistic regression on a field's profile, standardised by its own group.

    Attributes:
        config: ``reads`` (the profile's version), ``width``, ``classes``, ``alignment`` ('standardise'), ``channels``,
            ``crops``, and below ``trained`` what serving repeats.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the layer.

        Raises:
            ValueError: It was trained on another profile than this program measures.
        """
        super().__init__()
        self.config = dict(config)
        expected = Profile(config).width
        if config[READS] != VERSION or config["width"] != expected:
            message = (
                f"a head on {config[READS]} of width {config['width']}; this program measures {VERSION}: {expected}"
            )
            raise ValueError(message)
        self.classifier = nn.Linear(config["width"], len(config["classes"]))

    @property
    def classes(self) -> tuple[str, ...]:
        """Mechanisms, in the order of the logits."""
        return tuple(self.config["classes"])

    @property
    def alignment(self) -> str:
        """What was done to the profiles it was trained on: 'standardise'."""
        return str(self.config["alignment"])

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn profiles (batch, 1, width) into logits (batch, classes)."""
        return self.classifier(tokens[..., 0, :])  # type: ignore[no-any-return]


def new_classical_head(params: Params, extractor: Extractor, classes: tuple[str, ...]) -> ClassicalHead:
    """Return a classical head of an extractor's line, without weights that mean anything yet, on the CPU."""
    return ClassicalHead(
        {
            "kind": "head",
            READS: VERSION,
            "width": Profile(extractor.config).width,
            "classes": list(classes),
            "alignment": "standardise",
            "channels": list(extractor.channels),
            "crops": params.crops.model_dump(mode="json"),
            TRAINED: {**made_with(params), **groups_of(params)},
        }
    )


def front_of(extractor: Extractor, head: nn.Module) -> Extractor | Profile:
    """Return what a head reads: its line's extractor, or the profile of the same fields."""
    return Profile(extractor.config) if isinstance(head, ClassicalHead) else extractor
