"""The head: projector and transformer over all tokens of a frozen extractor (paper section 3, figure 2).

The extractor's class token at position 0 plays the head's class token; the head has no patch, position or class
parameters of its own, so every parameter it owns is trained.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from coda.config.params import Params
from coda.config.recorded import TRAINED
from coda.config.served_params import groups_of
from coda.errors import ConfigError, IntegrityError, Problem
from coda.networks import artifact
from coda.networks.alignment import TokenStatistics
from coda.networks.backbone import build_vit, run_blocks
from coda.networks.classical_head import READS, ClassicalHead
from coda.networks.extractor import Extractor, require_kind
from coda.networks.made_with import made_with
from coda.networks.rebuild import rebuild
from coda.networks.weights import InitialWeights, initial_weights, initialise_xavier, seeded

SOURCE_STATISTICS, LABELS, LABEL_REPORT = "source_statistics.safetensors", "labels.json", "label_report.json"
"""Files beside a head's weights: statistics of the source's raw tokens, the frozen label list, and what became of the
labels on their way there."""


class Head(nn.Module):
    """Linear on every token, transformer blocks, norm, and a linear classifier on token 0.

    Attributes:
        config: ``arch``, ``overrides``, ``classes``, ``alignment`` ('none' or 'standardise'), ``channels``, ``crops``,
            ``initial_weights``, and below ``trained`` what serving repeats: precision, attention, the groups of an
            alignment.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the head; its blocks are those of ``arch`` with ``overrides`` (depth, num_heads, embed_dim, ...)."""
        super().__init__()
        self.config = dict(config)
        trunk: Any = build_vit(config["arch"], 3, config["overrides"], drop_path=0.0)
        self.projector = nn.Linear(trunk.embed_dim, trunk.embed_dim)
        self.blocks = trunk.blocks
        self.norm = trunk.norm
        self.classifier = nn.Linear(trunk.embed_dim, len(config["classes"]))

    @property
    def classes(self) -> tuple[str, ...]:
        """Mechanisms, in the order of the logits."""
        return tuple(self.config["classes"])

    @property
    def alignment(self) -> str:
        """What was done to the tokens it was trained on: 'none' or 'standardise'."""
        return str(self.config["alignment"])

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens (batch, 1 + patches, width) into logits (batch, classes)."""
        hidden = self.norm(run_blocks(self.blocks, self.projector(tokens)))
        return self.classifier(hidden[:, 0])  # type: ignore[no-any-return]


def new_head(params: Params, extractor: Extractor, classes: tuple[str, ...], alignment: str, *, seed: int) -> Head:
    """Return a head for an extractor, on the CPU.

    Blocks and norm start from the weights that ``extractor.weights`` names, as the extractor's do: ImageNet's or those
    of a file (the first ``head.depth`` blocks), or seeded Xavier weights. Projector and classifier always start at
    random. The config says where from (``initial_weights``, with the SHA-256 of the file).

    Raises:
        ConfigError: The weights cannot be had, do not fit the head's size, or are not those that the extractor started
            from.
    """
    wanted = params.extractor
    weights = initial_weights(wanted.weights, wanted.arch)
    _require_the_same_start(weights, extractor)
    overrides = {**wanted.overrides, "depth": params.head.depth, "num_heads": params.head.num_heads}
    config = {
        "kind": "head",
        "arch": wanted.arch,
        "overrides": {**overrides, "embed_dim": extractor.width},
        "classes": list(classes),
        "alignment": alignment,
        "channels": list(extractor.channels),
        "crops": params.crops.model_dump(mode="json"),
        "initial_weights": weights.origin if weights else f"random:{seed}",
        TRAINED: {
            **made_with(params),
            **groups_of(params),
        },
    }
    with seeded(seed):
        head = Head(config)
        if weights is None:
            initialise_xavier(head)
    if weights is not None:
        _start_from(head, weights, wanted.weights)
    return head


def save_head(
    folder: Path, head: Head | ClassicalHead, extra: Mapping[str, bytes], provenance: Mapping[str, Any] | None = None
) -> str:
    """Write a model folder for a head, with its label list and source statistics, and return its digest."""
    config = {**head.config, **({"provenance": dict(provenance)} if provenance else {})}
    return artifact.save(folder, head.state_dict(), config, extra)


def load_head(folder: Path, expected_digest: str | None = None) -> Head | ClassicalHead:
    """Verify a model folder and rebuild its head, on tokens or on profiles, frozen, in evaluation mode on the CPU.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones.
        ConfigError: It holds another kind of network.
    """
    tensors, config = artifact.load(folder, expected_digest)
    require_kind(config, "head", folder)
    if READS in config:
        return rebuild(ClassicalHead, config, tensors, folder).requires_grad_(requires_grad=False).eval()
    return rebuild(Head, config, tensors, folder).requires_grad_(requires_grad=False).eval()


def load_source_statistics(folder: Path, expected_digest: str | None = None) -> TokenStatistics:
    """Verify a head's model folder and return the statistics of the raw tokens it was trained with, for CORAL.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones, or it holds no statistics.
    """
    content = artifact.extra_file(folder, SOURCE_STATISTICS, expected_digest)
    try:
        return TokenStatistics.from_bytes(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        problem = Problem(f"{folder}/{SOURCE_STATISTICS}", str(error)[:300], "token statistics", "Fetch it again.")
        raise IntegrityError(f"The statistics in {folder} cannot be read.", [problem]) from error


def load_labelled_compounds(folder: Path, expected_digest: str | None = None) -> frozenset[str] | None:
    """Verify a head's model folder and return the names of the compounds it was trained with; None without a list.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones, or its label list is none.
    """
    if not (folder / LABELS).is_file():
        return None
    return frozenset(_labelled(folder, expected_digest)) or None


def load_class_shares(
    folder: Path, classes: Sequence[str], expected_digest: str | None = None
) -> tuple[float, ...] | None:
    """Verify a head's model folder and return each class's share of the labelled compounds it was trained with.

    Returns:
        Shares, sum 1; None where there is no label list, or it names no compound of one of the classes.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones, or its label list is none.
    """
    if not (folder / LABELS).is_file():
        return None
    counts = Counter(_labelled(folder, expected_digest).values())
    total = sum(counts[name] for name in classes)
    return tuple(counts[name] / total for name in classes) if all(counts[name] for name in classes) else None


def _labelled(folder: Path, expected_digest: str | None) -> dict[str, str]:
    """Return compound -> mechanism of a head's label list."""
    content = artifact.extra_file(folder, LABELS, expected_digest)
    try:
        return {str(name): str(moa) for name, moa in json.loads(content).get("compounds", {}).items()}
    except (ValueError, AttributeError) as error:
        problem = Problem(f"{folder}/{LABELS}", str(error)[:300], "a label list", "Fetch it again.")
        raise IntegrityError(f"The label list in {folder} cannot be read.", [problem]) from error


def _require_the_same_start(weights: InitialWeights | None, extractor: Extractor) -> None:
    """Refuse a head that would start from other weights than its extractor did; an extractor of before may not say."""
    recorded = str(extractor.config.get("initial_weights", ""))
    kept, asked = recorded.rpartition(":")[2], weights.digest if weights else None
    if not recorded or (asked is None if recorded.startswith("random:") else asked == kept):
        return
    found = f"weights of SHA-256 {asked}" if asked else "'random'"
    remedy = "Give the weights that the extractor was pretrained from, or pretrain it anew."
    problem = Problem("extractor.weights", found, f"{recorded!r}, which the extractor started from", remedy)
    raise ConfigError("The head would start from other weights than its extractor.", [problem])


def _start_from(head: Head, weights: InitialWeights, named: str) -> None:
    own = head.state_dict()
    fitting = {name: tensor for name, tensor in weights.tensors.items() if name in own}
    wrong = [name for name in own if name.startswith(("blocks.", "norm.")) and name not in fitting]
    wrong += [name for name, tensor in fitting.items() if tensor.shape != own[name].shape]
    if wrong:
        remedy = "Lower head.depth to that of the weights, use their own heads and width, or extractor.weights=random."
        problem = Problem(f"head: {wrong[0]}", "no such tensor of this shape", f"a tensor of {named!r}", remedy)
        raise ConfigError("The head cannot start from the extractor's first weights.", [problem])
    with torch.no_grad():
        for name, tensor in fitting.items():
            own[name].copy_(tensor)
