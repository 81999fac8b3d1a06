"""The whole state of DINO: what adaptation continues from (paper section 3, step 3)."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coda.config.params import Params
from coda.networks import artifact
from coda.networks.dino_head import DinoHead, new_dino_head
from coda.networks.extractor import Extractor, new_extractor
from coda.training.methods.stored_state import MOMENTS, read_state

KIND = "adaptation_state"
"""Kind of a stored state; it is older than the choice of a method."""

NETWORKS: Mapping[str, tuple[type[Extractor] | type[DinoHead], str]] = {
    "student": (Extractor, "student"), "teacher": (Extractor, "teacher"),
    "student_head": (DinoHead, "dino_head"), "teacher_head": (DinoHead, "dino_head"),
}  # fmt: skip
"""Name of each network in a stored state -> what it is, and the key of its config."""


class DinoState(nn.Module):
    """Student and teacher, both DINO heads and the centre; changed in place by training.

    Attributes:
        student: Extractor that is trained.
        teacher: Moving average of the student: the extractor that serves.
        student_head: DINO head of the student.
        teacher_head: DINO head of the teacher.
        centre: Moving average of the teacher's logits, shape (prototypes,), float32.
        moments: Optimizer state of student and student head by name, where it is handed over; empty otherwise.
    """

    method = "dino"
    centre: Tensor

    def __init__(
        self,
        student: Extractor,
        teacher: Extractor,
        student_head: DinoHead,
        teacher_head: DinoHead,
        centre: Tensor,
        moments: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Put the parts together."""
        super().__init__()
        self.student, self.teacher = student, teacher
        self.student_head, self.teacher_head = student_head, teacher_head
        self.register_buffer("centre", centre)
        self.moments = dict(moments or {})

    @property
    def extractor(self) -> Extractor:
        """The teacher, which serves."""
        return self.teacher

    @property
    def learner(self) -> Extractor:
        """The student, which the optimizer changes."""
        return self.student

    @property
    def heads(self) -> list[tuple[DinoHead, DinoHead]]:
        """Each head of the student, with the teacher's head that follows it."""
        return [(self.student_head, self.teacher_head)]

    def config(self) -> dict[str, Any]:
        """Return everything needed to rebuild the networks."""
        return {
            "kind": KIND,
            "student": self.student.config,
            "teacher": self.teacher.config,
            "dino_head": self.student_head.config,
        }


def new_state(params: Params, *, seed: int) -> DinoState:
    """Return the state training starts from: teacher a copy of the student, centre at 0.

    Raises:
        ConfigError: The extractor cannot be built or its first weights cannot be had.
    """
    student = new_extractor(params, seed=seed)
    head = new_dino_head(params.dino, student.width, seed=seed + 1)
    teacher = Extractor({**student.config, "drop_path": 0.0})
    teacher.load_state_dict(student.state_dict())
    return DinoState(student, teacher, head, deepcopy(head), torch.zeros(params.dino.prototypes))


def save_state(folder: Path, state: DinoState) -> str:
    """Write a model folder for the state and return its digest."""
    moments = {f"{MOMENTS}{name}": tensor for name, tensor in state.moments.items()}
    return artifact.save(folder, {**state.state_dict(), **moments}, state.config())


def load_state(folder: Path, expected_digest: str | None = None) -> DinoState:
    """Verify a model folder and rebuild its state on the CPU.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones.
        ConfigError: It holds another kind of network.
    """
    networks, tensors, moments = read_state(folder, expected_digest, KIND, NETWORKS, {"centre": prototypes_of})
    return DinoState(**networks, centre=tensors["centre"], moments=moments)


def prototypes_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a moving average of logits of the head in a state's config."""
    return (int(config["dino_head"]["prototypes"]),)
