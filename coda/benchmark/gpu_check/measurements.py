"""Each measurement, by its kind. Every one runs the program's own code on the made plate."""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coda.adaptation.coda import adapt_extractor
from coda.adaptation.pairing_policy import choose_pairing
from coda.benchmark.contestants import Contestant, OurFeed, OurStep
from coda.benchmark.gpu_check.check_plan import Images, Item, Size
from coda.benchmark.gpu_check.made_plate import MadePlate
from coda.config.load import changed, load_params, shipped_params
from coda.config.params import Params
from coda.plates.fieldset import FieldSet
from coda.plates.store_reading import StoreFile
from coda.plates.stored import StoredFields
from coda.training.flops import dino_step
from coda.training.matrix_rate import measure_matrix_rate
from coda.training.methods.dino.state import new_state

Result = dict[str, Any]


@dataclass(frozen=True)
class _Counted(StoredFields):
    """Stored fields that count how often one is read and decoded."""

    reads: list[int] = field(default_factory=list, compare=False)

    def read_one(self, row: int) -> NDArray[np.uint8]:
        """Read one field, and count it."""
        self.reads.append(row)
        return super().read_one(row)


class Bench:
    """Everything that is measured with, made when it is first needed."""

    def __init__(self, size: Size, device: str, work: Path) -> None:
        """Read the parameters.

        Args:
            size: How large everything is.
            device: 'cuda' or 'cpu'.
            work: Folder of the plate store.
        """
        self.size, self.device = size, torch.device(device)
        files = shipped_params()
        settings = [f"compute.device={device}", f"adaptation.budget.iterations={size.iterations}", *size.settings]
        self.params: Params = load_params(files["params.yaml"], [files["params/plate.yaml"]], settings)
        if self.params.compute.threads:
            torch.set_num_threads(self.params.compute.threads)
        self.plate = MadePlate(size, self.params.crops.centre, work)

    def measure(self, item: Item) -> Result:
        """Return the numbers of one measurement, as JSON values."""
        kinds: Mapping[str, Callable[..., Result]] = {
            "matrix": self._matrix, "plate": self._plate, "step": self._step, "feed": self._feed,
            "adaptation": self._adaptation, "decode": self._decode,
        }  # fmt: skip
        return kinds[item.kind](**item.options)

    def _matrix(self) -> Result:
        return asdict(measure_matrix_rate(self.device, torch.bfloat16, seconds=self.size.turns * self.size.seconds))

    def _plate(self) -> Result:
        started = time.perf_counter()
        stored = self.plate.stored
        seconds, pixels = time.perf_counter() - started, math.prod(stored.places[0].shape) * len(stored)
        return {
            "fields": len(stored), "store_bytes": StoreFile(stored.places[0].store).size, "pixel_bytes": pixels,
            "seconds": seconds, "threads": self.plate.threads,
        }  # fmt: skip

    def _step(self, batch: int, images: Images, *, compiled: bool) -> Result:
        way = OurStep(self._fields(images), self._with(batch, images, compiled=compiled))
        state = way.objective.state
        work = dino_step(state.student, state.student_head, self.params.crops)
        return {**self._timed(way), "batch": batch, "images": images, "compiled": compiled, "flops_per_sample": work}

    def _feed(self, batch: int, images: Images) -> Result:
        fields = self._fields(images)
        result = {**self._timed(OurFeed(fields, self._with(batch, images))), "batch": batch, "images": images}
        if isinstance(fields, _Counted):
            result["decoded_per_sample"] = len(fields.reads) / (result["iterations"] * batch)
        return result

    def _adaptation(self) -> Result:
        fields, adaptation = self._memory(), self.params.adaptation
        by, least = self.params.pairs.by, adaptation.min_pairable_share
        pairing = choose_pairing(fields.table, min_pairable_share=least, by=by)
        state = new_state(self.params, seed=0)
        started = time.perf_counter()
        adapted = adapt_extractor(state, fields, self.params, pairing, seed=0)
        return {
            "fields": len(fields), "iterations": adapted.iterations,
            "batch": adaptation.budget.batch_size, "method": pairing.method, "seconds": time.perf_counter() - started,
            "loop_s": adapted.seconds, "samples_per_s": adapted.samples_per_s,
            "last_loss": adapted.log[-1]["loss"],
        }  # fmt: skip

    def _decode(self) -> Result:
        stored, cores = self.plate.stored, self.plate.threads
        rows = np.random.default_rng(2).permutation(len(stored)).tolist()
        spent = self.size.seconds * self.size.turns / 2
        alone = _read(stored, rows, threads=1, seconds=spent)
        return {
            "field_bytes": math.prod(stored.places[0].shape), "threads": cores, "fields_per_s_one_thread": alone,
            "fields_per_s_all_threads": _read(stored, rows, threads=cores, seconds=spent),
        }  # fmt: skip

    def _fields(self, images: Images) -> FieldSet | StoredFields:
        if images != "stored":
            return self._memory()
        stored = self.plate.stored
        return _Counted(stored.places, stored.table, stored.channels, stored.centre)

    def _memory(self) -> FieldSet:
        """Return the fields in memory, as an array of their own: a copy of it on the device ends with the measurement.

        Else the copy of an earlier measurement would count in the peak of a later one, and would be cut from where
        images are to be cut in host memory (`coda.training.images.image_source`).
        """
        whole = self.plate.memory
        return FieldSet(whole.pool.view(), whole.table, whole.channels)

    def _with(self, batch: int, images: Images, *, compiled: bool = False) -> Params:
        changes = {"pretrain.batch_size": batch, "compute.images": images, "compute.compile": compiled}
        return changed(self.params, changes)

    def _timed(self, way: Contestant) -> Result:
        """Return samples a second over some turns, after two runs that allocate, choose kernels and compile."""
        first = way.run(way.least)
        once = way.run(2 * way.least) / 2
        count = max(way.least, round(self.size.seconds * way.least / once))
        rates = [count * way.samples / way.run(count) for _ in range(self.size.turns)]
        return {
            "samples_per_s": median(rates), "best": max(rates), "turns": rates, "first_s": first,
            "iterations": 3 * way.least + self.size.turns * count,
        }  # fmt: skip


def _read(stored: StoredFields, rows: list[int], *, threads: int, seconds: float) -> float:
    """Return fields a second that some threads read, verify and decode, by the clock."""
    stored.read_one(rows[0])
    started, done = time.perf_counter(), 0
    with ThreadPoolExecutor(threads) as workers:
        while not done or time.perf_counter() - started < seconds:
            part = [rows[(done + number) % len(rows)] for number in range(32 * threads)]
            for _ in workers.map(stored.read_one, part):
                done += 1
    return done / (time.perf_counter() - started)
