"""The whole state of DINOv2: DINO's, patch heads in both networks, their centre, and the token of hidden patches."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coda.config.params import Params
from coda.networks.dino_head import DinoHead, new_dino_head
from coda.training.methods.dino import state as dino
from coda.training.methods.dino.state import DinoState
from coda.training.methods.stored_state import Shape, read_state
from coda.training.randomness import generator

KIND = "dinov2_state"
"""Kind of a stored state."""


class Dinov2State(DinoState):
    """DINO's state and what reading hidden patches needs; changed in place by training.

    Attributes:
        student_patch_head: Head of the student for patches; one of its own, as in DINOv2's released models.
        teacher_patch_head: The same of the teacher.
        mask_token: What the student sees in place of a hidden patch, shape (width,).
        patch_centre: Moving average of the teacher's logits of hidden patches, shape (prototypes,), float32.
    """

    method = "dinov2"
    patch_centre: Tensor

    def __init__(
        self,
        *,
        student_patch_head: DinoHead,
        teacher_patch_head: DinoHead,
        mask_token: Tensor,
        patch_centre: Tensor,
        **parts: Any,
    ) -> None:
        """Put the parts together; `parts` are those of `DinoState`."""
        super().__init__(**parts)
        self.student_patch_head, self.teacher_patch_head = student_patch_head, teacher_patch_head
        self.mask_token = nn.Parameter(mask_token)
        self.register_buffer("patch_centre", patch_centre)

    @property
    def heads(self) -> list[tuple[DinoHead, DinoHead]]:
        """Both heads of the student, each with the teacher's that follows it."""
        return [*super().heads, (self.student_patch_head, self.teacher_patch_head)]

    def config(self) -> dict[str, Any]:
        """Return everything needed to rebuild the networks."""
        return {**super().config(), "kind": KIND, "patch_head": self.student_patch_head.config}


def new_state(params: Params, *, seed: int) -> Dinov2State:
    """Return the state training starts from: DINO's with the same seed, and patch heads alike in both networks.

    The patch head has no BatchNorm: views hide different numbers of patches, so processes would normalise by batches of
    different sizes.

    Raises:
        ConfigError: The extractor cannot be built or its first weights cannot be had.
    """
    start = dino.new_state(params, seed=seed)
    head = new_dino_head(params.dino.model_copy(update={"batch_norm": False}), start.student.width, seed=seed + 2)
    token = torch.randn(start.student.width, generator=generator(seed, "mask token", 0)) * 0.02
    return Dinov2State(
        student=start.student, teacher=start.teacher, student_head=start.student_head, teacher_head=start.teacher_head,
        centre=start.centre, student_patch_head=head, teacher_patch_head=deepcopy(head),
        mask_token=token, patch_centre=torch.zeros(params.dino.prototypes),
    )  # fmt: skip


def load_state(folder: Path, expected_digest: str | None = None) -> Dinov2State:
    """Verify a model folder and rebuild its state on the CPU.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones, or describe no network of ours.
        ConfigError: It holds another kind of network.
    """
    heads = {f"{side}_patch_head": (DinoHead, "patch_head") for side in ("student", "teacher")}
    loose: dict[str, Shape] = {
        "centre": dino.prototypes_of,
        "mask_token": lambda config: (int(config["patch_head"]["width"]),),
        "patch_centre": lambda config: (int(config["patch_head"]["prototypes"]),),
    }
    networks, tensors, moments = read_state(folder, expected_digest, KIND, {**dino.NETWORKS, **heads}, loose)
    parts: dict[str, Any] = {**networks, **tensors}
    return Dinov2State(**parts, moments=moments)
