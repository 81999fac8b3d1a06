"""What the producers of the soak deliver: small batches, most of them good, some broken, late or sent again."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from coda.simulation.broken import break_batch
from coda.simulation.delivery import simulate_batch
from coda.simulation.delivery_files import write_image
from coda.simulation.design import Design, plan_experiment
from coda.simulation.laboratories import LABORATORIES
from coda.storage.objects import ObjectStore
from tests.flow.breakage import flip_a_byte, images_of, manifest_of, record, write_manifest

DESIGN = Design(
    mechanisms=2, compounds_per_mechanism=1, negcon_wells=2, poscon_wells=0, plate_wells=24, sites_per_well=1,
    field_px=96, effect_strength=4.0, off_target=0.0, batch_strength=0.2,
)  # fmt: skip
"""Two plates of it are 44 files and 0.75 MB, simulated in a tenth of a second."""

SEED = 3
"""Of the experiment: all sources screen the same compounds, and the trained one too."""


@dataclass(frozen=True)
class Fate:
    """What must become of a batch version, and what the ledger must say of it.

    Attributes:
        accepted: It may be released, or the incumbent kept.
        refused: It may be refused, for a reason that holds one of these words.
    """

    accepted: bool
    refused: tuple[str, ...] = ()


GOOD = Fate(True)
REPLACED = Fate(True, ("replaced", "was changed since the manifest was written"))
"""Of a version whose producer sent a changed one while it waited or ran: both ends are right."""


@dataclass(frozen=True)
class Kind:
    """A kind of delivery.

    Attributes:
        share: How many of all batches are of it.
        fate: What must become of it.
        spoil: Breaks the batch folder on purpose.
        late: Share of its files that come only after the manifest.
        again: How it is sent a second time: '' (not), 'same' or 'changed'.
        absent: Whether the late files never come.
    """

    share: float
    fate: Fate = GOOD
    spoil: Callable[[Path], object] | None = None
    late: float = 0.0
    again: str = ""
    absent: bool = False


def _cut_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-200])


def _say_another_batch(folder: Path) -> None:
    write_manifest(folder, {**manifest_of(folder), "batch": "elsewhere"})


KINDS: dict[str, Kind] = {
    "plain": Kind(0.58),
    "late files": Kind(0.08, late=0.3),
    "sent again": Kind(0.08, again="same"),
    "sent again, changed": Kind(0.08, REPLACED, again="changed"),
    "manifest cut off": Kind(0.03, Fate(False, ("not JSON",)), _cut_manifest),
    "manifest of another batch": Kind(0.03, Fate(False, ("as in its key",)), _say_another_batch),
    "unknown stain": Kind(0.03, Fate(False, ("Actin",)), lambda folder: break_batch(folder, ["unknown_stain"], 0)),
    "no controls": Kind(
        0.03, Fate(False, ("negative-control wells",)), lambda folder: break_batch(folder, ["no_controls"], 0)
    ),
    "other bytes": Kind(
        0.03, Fate(False, ("was changed since the manifest was written",)),
        lambda folder: flip_a_byte(folder, *(name for plate in (0, 1) for name in images_of(folder, plate)[::3])),
    ),
    "files that never come": Kind(
        # of both plates: with one of them whole, half of the batch may be used
        0.03, Fate(False, ("was not delivered", "not delivered")), late=0.75, absent=True
    ),
}  # fmt: skip
"""Name -> kind; all but the first four are refused, for the reason that was planted."""


@dataclass(frozen=True)
class Delivery:
    """One batch to deliver."""

    source: str
    batch: str
    kind: str


@dataclass(frozen=True)
class Sent:
    """One batch version as it was sent.

    Attributes:
        source: The source.
        batch: The batch.
        digests: What its digest may be: of the canonical JSON, or of the bytes when it is no usable manifest.
        fate: What must become of it.
    """

    source: str
    batch: str
    digests: tuple[str, str]
    fate: Fate


def plan(batches: int, sources: int, seed: int) -> list[Delivery]:
    """Return so many batches in the order of delivery: one of every kind, as far as there is room, then by share."""
    rng = random.Random(seed)
    rest = [name for name, kind in KINDS.items() for _ in range(round(kind.share * batches) - 1)]
    kinds = [*KINDS, *rest, *["plain"] * batches][:batches]
    rng.shuffle(kinds)
    names = [f"site_{1 + number % sources}" for number in range(batches)]
    rng.shuffle(names)
    return [
        Delivery(source, f"b{number:03d}", kind)
        for number, (source, kind) in enumerate(zip(names, kinds, strict=True), start=1)
    ]


class Producer:
    """Simulates and uploads batches, as laboratories do: the manifest last, unless files are late."""

    def __init__(self, landing: ObjectStore, folder: Path, sources: int) -> None:
        self._landing = landing
        self._folder = folder
        self._experiment = plan_experiment(SEED, DESIGN)
        for number in range(1, sources + 1):
            model = LABORATORIES["lab_b" if number % 2 else "lab_c"]
            LABORATORIES.setdefault(f"site_{number}", model.model_copy(update={"name": f"site_{number}"}))

    def send(self, delivery: Delivery) -> tuple[Sent, dict[str, bytes]]:
        """Deliver a batch; return its version, and the files that are still to come."""
        kind = KINDS[delivery.kind]
        plates = [f"{delivery.source}_{delivery.batch}_p{number}" for number in (1, 2)]
        simulate_batch(self._experiment, delivery.source, delivery.batch, plates, self._folder, workers=1)
        folder = self._folder / delivery.source / delivery.batch
        if kind.spoil is not None:
            kind.spoil(folder)
        images = [name for plate in (0, 1) for name in images_of(folder, plate)] if kind.late else []
        late = {name: (folder / name).read_bytes() for name in images[: int(kind.late * len(images))]}
        for name in late:
            (folder / name).unlink()
        self._landing.upload_folder(folder, f"{delivery.source}/{delivery.batch}", workers=2)
        body = (folder / "manifest.json").read_bytes()
        if kind.again != "changed":
            shutil.rmtree(folder)
        return _sent(delivery, body, kind.fate), {} if kind.absent else late

    def complete(self, delivery: Delivery, late: dict[str, bytes]) -> None:
        """Send the files that were late."""
        for name, body in late.items():
            self._landing.put(f"{delivery.source}/{delivery.batch}/{name}", body)

    def send_again(self, delivery: Delivery) -> Sent | None:
        """Send a batch a second time; return the new version when it is one."""
        key = f"{delivery.source}/{delivery.batch}/manifest.json"
        if KINDS[delivery.kind].again == "same":
            self._landing.put(key, self._landing.get(key))
            return None
        folder = self._folder / delivery.source / delivery.batch
        name = images_of(folder)[0]
        pixels = tifffile.imread(folder / name)
        write_image(folder / name, np.ascontiguousarray(pixels[::-1]), 1.0, "none")
        record(folder, name)
        self._landing.upload(folder / name, f"{delivery.source}/{delivery.batch}/{name}")
        body = (folder / "manifest.json").read_bytes()
        self._landing.put(key, body)
        shutil.rmtree(folder)
        return _sent(delivery, body, GOOD)


def _sent(delivery: Delivery, body: bytes, fate: Fate) -> Sent:
    """Describe a version by digests that are computed here, not by the code under test."""
    try:
        canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except json.JSONDecodeError:
        canonical = body
    digests = (hashlib.sha256(canonical).hexdigest(), hashlib.sha256(body).hexdigest())
    return Sent(delivery.source, delivery.batch, digests, fate)
