"""Networks of some kilobytes, as training and adaptation leave them on disk, and the release that binds them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from coda.config import Params
from coda.contracts import ReleaseRecord
from coda.networks.alignment import fit_statistics
from coda.networks.extractor import save_extractor
from coda.networks.head import LABELS, SOURCE_STATISTICS, new_head, save_head
from coda.registry import Provenance, register_extractor, register_head
from coda.settings import Settings
from coda.training.methods.dino.state import new_state, save_state

CLASSES = ("actin", "kinase", "tubulin")


@dataclass(frozen=True)
class Trained:
    """Folders as the training steps leave them."""

    pretrained: Path
    heads: Path


def tiny(params: Params) -> Params:
    """The parameters of the demo with one block of width 24."""
    extractor = {"overrides": {"img_size": 48, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 3}}
    dino = {"prototypes": 16, "hidden_dim": 16, "bottleneck_dim": 8}
    return params.model_copy(
        update={
            "extractor": params.extractor.model_copy(update=extractor),
            "dino": params.dino.model_copy(update=dino),
            "head": params.head.model_copy(update={"depth": 1}),
        }
    )


def train(folder: Path, params: Params, seed: int) -> Trained:
    """Write an extractor with its state, and a head for each alignment; random weights."""
    state = new_state(params, seed=seed)
    save_state(folder / "pretrained" / "state", state)
    save_extractor(folder / "pretrained" / "extractor", state.teacher)
    for number, alignment in enumerate(("none", "standardise")):
        head = new_head(params, state.teacher, CLASSES, alignment, seed=seed + number)
        statistics = fit_statistics(torch.randn(50, 24, generator=torch.Generator().manual_seed(seed)))
        extra = {LABELS: b"{}", SOURCE_STATISTICS: statistics.to_bytes()}
        save_head(folder / "heads" / alignment, head, extra)
    return Trained(folder / "pretrained", folder / "heads")


def provenance(run_id: str = "run-1", source: str = "lab_a") -> Provenance:
    return Provenance(run_id=run_id, source=source, params_digest="0" * 64)


def bind(folders: Trained, settings: Settings, name: str = "rel-1", alignment: str = "none") -> ReleaseRecord:
    """Register extractor and heads, and return the release that binds the extractor to one of them."""
    facts = provenance(run_id=f"run-of-{folders.pretrained.parent.name}")
    extractor = register_extractor(
        folders.pretrained / "extractor", folders.pretrained / "state", facts, settings=settings
    )
    heads = {
        way: register_head(folders.heads / way, extractor, facts, settings=settings) for way in ("none", "standardise")
    }
    return ReleaseRecord(
        release_id=name, source="lab_a", created_at=datetime.now(UTC), method="source", extractor=extractor,
        head=heads[alignment], alignment=alignment, heads=tuple(heads.values()), run_id="run-1",
        params_digest="0" * 64, gate_sentence="It is good.", approver="gate",
    )  # fmt: skip
