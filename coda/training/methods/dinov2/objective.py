"""One DINOv2 iteration: DINO's, of which the student sees the global views with hidden patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from coda.networks.dino_head import DinoHead
from coda.networks.extractor import Extractor, pool_tokens
from coda.training.crops import Views
from coda.training.flops import BACKWARD, dino_head_forward
from coda.training.hooks import TrainableSubset
from coda.training.methods.dino.objective import DinoObjective, Seen
from coda.training.methods.dino.student_with_head import StudentWithHead
from coda.training.methods.dinov2.losses import koleo_loss, patch_loss, updated_patch_centre
from coda.training.methods.dinov2.masks import Masks, draw_masks
from coda.training.methods.dinov2.state import Dinov2State
from coda.training.randomness import derived_seed


@dataclass(frozen=True)
class SeenPatches(Seen):
    """What both networks make of the views, and of the patches that the student does not see.

    Attributes:
        masks: Which these are.
        student_patches: The student's guesses, shape (hidden patches, prototypes).
        teacher_patches: What the teacher sees, shape (hidden patches, prototypes).
    """

    masks: Masks
    student_patches: Tensor
    teacher_patches: Tensor


class Dinov2Objective(DinoObjective):
    """DINO's step with two losses more; the share of the global views that is hidden is drawn for all processes."""

    sections: ClassVar[frozenset[str]] = frozenset({"crops", "dino", "dinov2"})
    state: Dinov2State

    def draw(self, iteration: int) -> Tensor:
        """Return which patches of this process's global views are hidden, on the CPU, shape (views, patches)."""
        own, batch = self.params.dinov2, self.budget.batch_size
        side = self.params.crops.global_size // self.state.student.patch_size
        rng = np.random.default_rng(derived_seed(self.seed, "hidden patches", iteration))
        drawn = draw_masks(2 * batch, (side, side), share=own.masked_share, ratio=own.mask_ratio, rng=rng)
        return drawn.view(2, batch, -1)[:, self.share].flatten(0, 1)

    def work(self) -> float:
        """Return DINO's work, and that of the patch heads on the mean number of hidden patches."""
        own, side = self.params.dinov2, self.params.crops.global_size // self.state.student.patch_size
        hidden = 2 * own.masked_share * sum(own.mask_ratio) / 2 * side**2
        return super().work() + (2 + BACKWARD) * hidden * dino_head_forward(self.state.student_patch_head)

    def _new_student(self) -> nn.Module:
        state = self.state
        return StudentWithHeads(
            state.student, state.student_head, state.student.pool, self.hooks.trainable,
            patch_head=state.student_patch_head, mask_token=state.mask_token,
        )  # fmt: skip

    def _new_teacher(self) -> nn.Module:
        return _Teacher(self.state)

    def _seen(self, iteration: int, views: Views) -> SeenPatches:
        masks = Masks.of(self.draw(iteration), self.runtime.device)
        with torch.no_grad():
            features, logits, seen = self.teacher(views.globals_, masks.places)
        sizes = [views.globals_, views.locals_] if len(views.locals_) else [views.globals_]
        student_logits, tokens, guessed = self.student(
            sizes, self._paths(iteration, sizes), masks.hidden, masks.places
        )  # fmt: skip
        return SeenPatches(features, logits, student_logits, tokens, masks, guessed, seen)

    def _further_losses(self, seen: Seen, temperature: float) -> dict[str, Tensor]:
        if not isinstance(seen, SeenPatches):
            message = f"{type(seen).__name__} holds no hidden patches"
            raise TypeError(message)
        own, views = self.params.dinov2, len(seen.tokens)
        hidden = patch_loss(
            seen.student_patches, seen.teacher_patches, self.state.patch_centre, seen.masks.weights, views,
            student_temperature=self.params.dino.student_temperature, teacher_temperature=temperature,
        )  # fmt: skip
        features = pool_tokens(seen.tokens.float(), self.state.student.pool)
        spread = torch.stack([koleo_loss(crops) for crops in features.chunk(2)]).sum()
        return {"patch_loss": own.patch_weight * hidden, "koleo": own.koleo_weight * spread}

    def _move_centres(self, seen: Seen) -> None:
        super()._move_centres(seen)
        if isinstance(seen, SeenPatches):
            momentum = self.params.dino.centre_momentum
            self.state.patch_centre = updated_patch_centre(self.state.patch_centre, seen.teacher_patches, momentum)


class StudentWithHeads(StudentWithHead):
    """The student with the patch head and the token of hidden patches."""

    def __init__(
        self,
        student: Extractor,
        head: DinoHead,
        pool: Literal["cls", "mean"],
        trainable: TrainableSubset | None = None,
        *,
        patch_head: DinoHead,
        mask_token: nn.Parameter,
    ) -> None:
        """Put together what learns; see `StudentWithHead`."""
        super().__init__(student, head, pool, trainable)
        self.patch_head, self.mask_token = patch_head, mask_token

    def forward(  # type: ignore[override]
        self, sizes: Sequence[Tensor], paths: Sequence[Tensor | None], hidden: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute logits of all views, tokens of the global ones, and logits of their hidden patches."""
        logits, tokens = self._logits_and_tokens(sizes, paths, (hidden, self.mask_token))
        return logits, tokens, self.patch_head(_patches(tokens, places))


class _Teacher(nn.Module):
    """The teacher as one module: it sees whole views, and tells what the hidden patches are."""

    def __init__(self, state: Dinov2State) -> None:
        super().__init__()
        self.extractor, self.head, self.patch_head = state.teacher, state.teacher_head, state.teacher_patch_head

    def forward(self, crops: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.extractor(crops)
        features = pool_tokens(tokens, self.extractor.pool)
        return features, self.head(features), self.patch_head(_patches(tokens, places))


def _patches(tokens: Tensor, places: Tensor) -> Tensor:
    return tokens[:, 1:].flatten(0, 1).index_select(0, places)
