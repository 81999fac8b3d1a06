"""Student and DINO head as one module: what several processes share, and what torch.compile compiles."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from coda.networks.dino_head import DinoHead
from coda.networks.extractor import Extractor, pool_tokens
from coda.training.hooks import TrainableSubset


class StudentWithHead(nn.Module):
    """Owns every parameter that a DINO step changes, adapters included."""

    def __init__(
        self, student: Extractor, head: DinoHead, pool: Literal["cls", "mean"], trainable: TrainableSubset | None = None
    ) -> None:
        """Put the student and its head together.

        Args:
            student: The extractor that learns.
            head: Its DINO head.
            pool: What the head sees of the tokens.
            trainable: Which of the student's weights learn; all when not given.
        """
        super().__init__()
        self.student, self.head, self._pool, self._trainable = student, head, pool, trainable
        self.adapters = nn.ParameterList(trainable.parameters() if trainable is not None else [])

    def forward(self, sizes: Sequence[Tensor], paths: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Compute logits of all views and tokens of the first ones.

        Args:
            sizes: Views of one size each, the global ones first; shape (views, channels, side, side).
            paths: For each size the factors of the student's drop paths, shape (layers, views); None without any.

        Returns:
            Logits of all views in order, shape (views, prototypes), and the tokens of the first size, shape (views, 1 +
            patches, width).
        """
        return self._logits_and_tokens(sizes, paths)

    def _logits_and_tokens(
        self, sizes: Sequence[Tensor], paths: Sequence[Tensor | None], hidden: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `forward`; `hidden` says what the student does not see of the global views (`Extractor.forward`)."""
        weights = self._trainable.weights() if self._trainable is not None else {}
        tokens: list[Tensor] = []
        for crops, factors in zip(sizes, paths, strict=True):
            seen = (crops, None, factors, None if tokens else hidden)
            tokens.append(functional_call(self.student, dict(weights), seen) if weights else self.student(*seen))
        features = torch.cat([pool_tokens(part, self._pool) for part in tokens])
        return self.head(features), tokens[0]
