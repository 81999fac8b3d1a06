"""What is measured, at which size, and how long each part of it may take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["matrix", "plate", "step", "feed", "adaptation", "decode"]
Images = Literal["device", "host", "stored"]


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        name: 'full' or 'tiny'.
        wells: Wells of the plate that hold fields.
        sites: Fields of each.
        side: Edge of a stored field in pixels.
        batches: Batch sizes (pairs) of the DINO step.
        compiled: Those of them that torch.compile is tried with.
        batch: Of the feeds.
        iterations: Of the adaptation.
        seconds: About how long one turn of a measurement takes.
        turns: Turns of each.
        settings: Changes of params.yaml.
    """

    name: str
    wells: int
    sites: int
    side: int
    batches: tuple[int, ...]
    compiled: tuple[int, ...]
    batch: int
    iterations: int
    seconds: float
    turns: int
    settings: tuple[str, ...]

    @property
    def fields(self) -> int:
        """Fields of the plate."""
        return self.wells * self.sites


SETTINGS = (
    "extractor.weights=random",  # no network, and weights change no rate
    "extractor.channels=[DNA, ER, RNA, AGP, Mito]",
    "compute.precision=bfloat16",
)

FULL = Size(
    "full", wells=384, sites=9, side=540, batches=(64, 128, 256, 512), compiled=(128, 512), batch=128, iterations=300,
    seconds=2.0, turns=4, settings=SETTINGS,
)  # fmt: skip
"""DeiT-S on a plate of 3,456 fields, as a laboratory has it."""

TINY = Size(
    "tiny", wells=6, sites=2, side=40, batches=(2, 4), compiled=(4,), batch=2, iterations=2, seconds=0.01, turns=2,
    settings=(
        *SETTINGS,
        "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
        "crops.centre=32", "crops.global_size=16", "crops.local_size=8",
        "dino.prototypes=12", "dino.hidden_dim=16", "dino.bottleneck_dim=8",
        "head.depth=1", "head.num_heads=2", "adaptation.budget.batch_size=4", "compute.threads=1",
    ),
)  # fmt: skip
"""To see that everything runs; its numbers say nothing."""

SIZES = {size.name: size for size in (FULL, TINY)}


@dataclass(frozen=True)
class Item:
    """One measurement.

    Attributes:
        name: 'step-128', for people and for the record.
        kind: Which measurement.
        budget_s: Seconds after which it is ended.
        options: What `coda.benchmark.gpu_check.measurements` needs to know.
    """

    name: str
    kind: Kind
    budget_s: float
    options: Mapping[str, Any] = field(default_factory=dict)


def items_of(size: Size) -> list[Item]:
    """Return all measurements, the most telling first: what time does not suffice for comes in a second call."""
    images: tuple[Images, ...] = ("device", "host", "stored")
    return [
        Item("matrix", "matrix", 40),
        Item("plate", "plate", 120),
        *(_step(batch) for batch in size.batches),
        *(Item(f"feed-{where}", "feed", 60, {"batch": size.batch, "images": where}) for where in images),
        *(_step(size.batch, images=where) for where in images[1:]),
        Item("adaptation", "adaptation", 120),
        Item("decode", "decode", 40),
        *(_step(batch, compiled=True) for batch in size.compiled),
    ]


def _step(batch: int, *, images: Images = "device", compiled: bool = False) -> Item:
    name = f"step-{batch}" + ("" if images == "device" else f"-{images}") + ("-compiled" if compiled else "")
    return Item(name, "step", 200 if compiled else 60, {"batch": batch, "images": images, "compiled": compiled})
