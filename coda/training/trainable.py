"""Which weights of the student learn: all, the first or last blocks, or the norms (paper: all).

What does not learn stays bit-identical, in the student; the teacher follows the student as ever. Low-rank
changes are in `coda.training.low_rank`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from coda.config.params import Adaptation
from coda.errors import ConfigError, Problem
from coda.networks.extractor import Extractor
from coda.training.hooks import TrainableSubset
from coda.training.low_rank import LowRank


class NamedSubset:
    """The student's own weights, those with chosen names (`coda.training.hooks.TrainableSubset`)."""

    def __init__(self, student: Extractor, names: set[str]) -> None:
        """Let the named parameters of the student learn, and no other."""
        self._parameters: list[nn.Parameter] = []
        for name, parameter in student.named_parameters():
            parameter.requires_grad = name in names
            if name in names:
                self._parameters.append(parameter)

    def parameters(self) -> list[nn.Parameter]:
        """Return what learns, in the student's order."""
        return self._parameters

    def weights(self) -> Mapping[str, Tensor]:
        """Return nothing: the student computes with its own weights."""
        return {}

    def merge_(self) -> None:
        """Do nothing: the optimizer changes the student itself."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the student's weights are in the state's checkpoint."""
        return {}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Do nothing; see `state_dict`."""


def new_trainable(student: Extractor, adaptation: Adaptation, *, seed: int) -> TrainableSubset:
    """Return the trainable subset of a student that ``adaptation.trainable`` names.

    Args:
        student: On the device it is trained on, with the weights that adaptation starts from.
        adaptation: ``trainable``, ``trainable_blocks``, ``low_rank_rank`` and ``low_rank_scale`` are read.
        seed: Seed of what starts at random (low rank).

    Raises:
        ConfigError: The student has fewer blocks, or smaller matrices, than are asked for.
    """
    if adaptation.trainable == "low_rank":
        return LowRank(student, rank=adaptation.low_rank_rank, scale=adaptation.low_rank_scale, seed=seed)
    return NamedSubset(student, trainable_names(student, adaptation.trainable, adaptation.trainable_blocks))


def trainable_names(student: Extractor, trainable: str, blocks: int) -> set[str]:
    """Return the names of the student's parameters that learn.

    Args:
        student: Any extractor.
        trainable: 'all'; 'first_blocks': patch embedding, positions, prefix tokens and the first `blocks` blocks;
            'last_blocks': the last `blocks` blocks and the final norm; 'norms': weights *and* biases of every
            LayerNorm, the final one included.
        blocks: Number of blocks; at most the student's.

    Raises:
        ConfigError: The student has fewer blocks.
    """
    names = {name for name, _ in student.named_parameters()}
    if trainable == "all":
        return names
    if trainable == "norms":
        norms = [name for name, layer in student.named_modules() if isinstance(layer, nn.LayerNorm)]
        return {name for name in names if name.rpartition(".")[0] in norms}
    depth = len(student.vit.blocks)
    if blocks > depth:
        problem = Problem("adaptation.trainable_blocks", str(blocks), f"at most {depth} blocks", "Lower it.")
        raise ConfigError("The extractor has fewer blocks.", [problem])
    own = {name: _block(name) for name in names}
    if trainable == "first_blocks":
        before = {name for name in names if name.startswith(("vit.patch_embed.", "vit.norm_pre."))}
        before |= names & {"vit.cls_token", "vit.reg_token", "vit.pos_embed"}
        return before | {name for name, block in own.items() if block is not None and block < blocks}
    last = {name for name, block in own.items() if block is not None and block >= depth - blocks}
    return last | {name for name in names if name.startswith("vit.norm.")}


def _block(name: str) -> int | None:
    steps: list[Any] = name.split(".")
    return int(steps[2]) if steps[:2] == ["vit", "blocks"] else None
