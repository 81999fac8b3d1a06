"""How fast the engine is: against the customary way, and against the machine (docs/speed.md)."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed.baseline_loop import write_pngs
from benchmarks.speed.contest import Compared, CustomaryFeed, CustomaryStep, compare
from benchmarks.speed.contest_processes import Remote, Together
from coda.benchmark.contestants import Contestant, OurFeed, OurStep
from coda.benchmark.data import simulated
from coda.benchmark.machine import Machine, describe_machine
from coda.benchmark.simulation_plan import simulation_plan
from coda.config.params import Params
from coda.networks.runtime import resolve_runtime
from coda.plates.fieldset import FieldSet
from coda.training.flops import dino_step
from coda.training.matrix_rate import MatrixRate, measure_matrix_rate
from coda.training.methods.dino.state import new_state

MessageCallback = Callable[[str], None]


@dataclass(frozen=True)
class ScaleReport:
    """One network on one machine.

    Attributes:
        name: 'demo' or 'deit-small', or what the caller calls it.
        network: Its size in words.
        precision: Of our engine; the customary way is in float32.
        batch_size: Pairs in a step.
        flops_per_sample: Work of one step for one pair.
        loop: Training loops, views included.
        feed: Views alone: the DataLoader against the engine's cropper.
        machine_rate: Matrix rate in our precision, with the threads of this run.
        peak_bytes: Largest memory of each way, in a process of its own: 'customary' and 'ours'.
        side_by_side: One process with all threads ('customary') against one process a thread ('ours'); on a CPU.
        compiled: The engine as it is ('customary') against torch.compile ('ours'), when asked for.
    """

    name: str
    network: str
    precision: str
    batch_size: int
    flops_per_sample: float
    loop: Compared
    feed: Compared
    machine_rate: MatrixRate
    peak_bytes: dict[str, int]
    side_by_side: Compared | None = None
    compiled: Compared | None = None

    @property
    def utilisation(self) -> float:
        """Share of the machine's matrix rate that our step turns into the method's work, at the best turn."""
        return max(self.loop.ours) * self.flops_per_sample / self.machine_rate.flops

    @property
    def feed_share(self) -> float:
        """Share of our step that goes into its views."""
        return max(self.loop.ours) / max(self.feed.ours)


@dataclass(frozen=True)
class SpeedReport:
    """All of one run of `coda benchmark speed`."""

    machine: Machine
    rates: tuple[MatrixRate, ...]
    scales: tuple[ScaleReport, ...]


def measure_speed(
    scales: dict[str, Params],
    *,
    turns: int = 4,
    seconds: float = 1.5,
    compiled: bool = False,
    cache: Path,
    told: MessageCallback = lambda words: None,
) -> SpeedReport:
    """Measure the machine, and at each scale the engine against the customary way.

    Args:
        scales: Name -> parameters; `pretrain` gives the batch.
        turns: Turns of each comparison.
        seconds: About how long each side runs in a turn.
        compiled: Also with torch.compile, which takes a minute or more.
        cache: Where simulated plates are kept.
        told: Called with what is being done.
    """
    first = next(iter(scales.values()))
    device = resolve_runtime(first.compute).device
    if first.compute.threads:
        torch.set_num_threads(first.compute.threads)
    machine = describe_machine(device)
    spent = min(2.0, turns * seconds)
    rates = tuple(measure_matrix_rate(device, dtype, seconds=spent) for dtype in (torch.float32, torch.bfloat16))
    reports = []
    for name, params in scales.items():
        told(f"{name}: simulating a few plates")
        fields = speed_fields(params, cache)
        reports.append(_scale(name, fields, params, rates, turns, seconds, told, compiled=compiled))
    return SpeedReport(machine, rates, tuple(reports))


def speed_fields(params: Params, cache: Path) -> FieldSet:
    """Return simulated fields of two batches, as large as the crops need; their PNGs are as large as real ones."""
    design: dict[str, object] = {"mechanisms": 4, "compounds_per_mechanism": 2, "negcon_wells": 2, "poscon_wells": 0}
    pixels = round((params.crops.centre + 2) / params.ingest.scaling_factor)
    design |= {"plate_wells": 24, "sites_per_well": 1, "field_px": pixels}
    plan = simulation_plan(params, {"lab_a": 2}, plates=1, design=design)
    return simulated(0, plan, cache).fields


def _scale(
    name: str,
    fields: FieldSet,
    params: Params,
    rates: tuple[MatrixRate, ...],
    turns: int,
    seconds: float,
    told: MessageCallback,
    *,
    compiled: bool,
) -> ScaleReport:
    runtime = resolve_runtime(params.compute)
    precision = "bfloat16" if runtime.low_precision is not None else "float32"
    state = new_state(params, seed=0)
    work = dino_step(state.student, state.student_head, params.crops)
    vit = state.student.vit
    network = f"width {state.student.width}, {len(vit.blocks)} blocks, views of {params.crops.global_size} and "
    network += f"{params.crops.local_size} px"
    threads = torch.get_num_threads()

    def contest(what: str, customary: Contestant, ours: Contestant) -> Compared:
        told(f"{name}: {what}")
        return compare(
            customary, ours, turns=turns, seconds=seconds, told=lambda words: told(f"{name}: {what}, {words}")
        )

    with tempfile.TemporaryDirectory(prefix="coda-speed-") as folder:
        paths = write_pngs(fields, Path(folder))
        feed = contest("views alone", CustomaryFeed(paths, fields, params), OurFeed(fields, params))
        customary, ours = CustomaryStep(paths, fields, params, runtime.device), OurStep(fields, params)
        loop = contest("training", customary, ours)
        faster = None
        if compiled:
            told(f"{name}: compiling")
            changed = params.model_copy(update={"compute": params.compute.model_copy(update={"compile": True})})
            faster = contest("as it is and compiled", ours, OurStep(fields, changed))
        del customary, ours
        told(f"{name}: memory")
        whole = Remote("ours", fields, params, threads=threads)
        usual = Remote("customary", fields, params, threads=threads, paths=paths)
        peaks = {}
        for kind, remote in (("customary", usual), ("ours", whole)):
            remote.run(remote.least)
            peaks[kind] = remote.peak_bytes()
        usual.end()
        beside = None
        if runtime.device.type == "cpu" and threads > 1:
            parts = [Remote("ours", fields, params, threads=1) for _ in range(threads)]
            beside = contest("one process and one for each thread", whole, Together(parts))
            for part in parts:
                part.end()
        whole.end()
    rate = next(rate for rate in rates if rate.dtype == precision)
    return ScaleReport(
        name, network, precision, params.pretrain.batch_size, work, loop, feed, rate, peaks, beside, faster
    )
