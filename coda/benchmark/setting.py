"""The setting of a benchmark: which data, seeds, sources, targets and parameters, and how to say so."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coda.benchmark.jobs import Outcome
from coda.benchmark.rendering import Progress
from coda.benchmark.simulation_plan import DEMO_BATCHES, simulation_plan
from coda.benchmark.specs import DataSpec, Simulated, ingested, loaded
from coda.config import params_digest
from coda.config.params import Params
from coda.errors import ConfigError, Problem, raise_if_any
from coda.simulation.laboratories import Laboratory, find_laboratory
from coda.simulation.shifts import Shifts, name_of, shifted_by_kind

SIMULATED_NOTES = (
    (
        "These are simulated plates and a tiny network: they show that the method is built right and how its parts "
        "relate, and are no evidence about real plates."
    ),
    (
        "A seed is a new experiment: other compounds, batches, fields and first weights, so deviations over seeds mix "
        "all of them; differences between systems of one seed are far tighter."
    ),
)
FIRST_CHOOSING, FIRST_SPARE, FIRST_REPORTING = 10, 30, 100
"""First simulated seeds that budgets and limits are chosen on, that nobody uses, and that report (docs/protocol.md)."""

REPORTING = "Nothing was chosen on these seeds: they are kept for reporting (docs/protocol.md)."
CHOSEN = "Parameters of the demo's scale were settled while looking at seeds of 10 to 29: these numbers flatter them."
DEVELOPMENT = "Seeds below 10 are for development: nothing may be claimed on them (docs/protocol.md)."

REAL_NOTES = (
    "A seed is another run on the same plates: other first weights, order and views.",
    "Targets are adapted to and evaluated on the same images, as in the paper; their labels are read for scores only.",
)


@dataclass(frozen=True)
class Setting:
    """What a benchmark is run on.

    Attributes:
        data: Seed -> data.
        sources: Sources that models are trained on.
        targets: Sources that they are applied to.
        params: Parameters.
        root: Folder that jobs and rendered plates are kept in.
        chance: Accuracy of guessing.
        simulated: Whether the plates are simulated.
    """

    data: Mapping[int, DataSpec]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    params: Params
    root: Path
    chance: float
    simulated: bool

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds, in order."""
        return tuple(self.data)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers can and cannot carry."""
        if not self.simulated:
            return REAL_NOTES
        return (*SIMULATED_NOTES, *what_seeds_carry(self.seeds))

    @property
    def caption(self) -> str:
        """Seeds and parameters in a sentence, for below a table."""
        deviation = " ± sample standard deviation" if len(self.seeds) > 1 else ""
        return (
            f"Mean{deviation} over {len(self.seeds)} seed(s) ({', '.join(map(str, self.seeds))}); the best of a column "
            f"is marked. Parameters {params_digest(self.params)[:12]}, {machine()}."
        )

    def lead(self, what: str) -> str:
        """Return the first sentence of a report."""
        kind = "simulated plates" if self.simulated else "ingested plates"
        return (
            f"{what}, trained on {', '.join(self.sources)} and applied to {', '.join(self.targets)}: {kind}, "
            f"{len(self.seeds)} seed(s)."
        )

    def facts(self, outcomes: Sequence[Outcome] = ()) -> dict[str, str]:
        """Return where the numbers come from, for the end of a report."""
        seconds = sum(outcome.seconds for outcome in outcomes)
        return {
            "Seeds": ", ".join(map(str, self.seeds)),
            "Parameters digest": params_digest(self.params),
            "Data": "; ".join(f"seed {seed}: {spec.digest[:16]}" for seed, spec in self.data.items()),
            "Machine": machine(),
            "Work of all jobs": f"{seconds / 60:.1f} minutes, summed over {len(outcomes)} jobs",
        }

    def described(self) -> dict[str, Any]:
        """Return the setting for programs."""
        return {
            "seeds": self.seeds, "sources": self.sources, "targets": self.targets, "simulated": self.simulated,
            "params_digest": params_digest(self.params), "machine": machine(), "chance": self.chance,
            "data": {str(seed): spec.digest for seed, spec in self.data.items()},
        }  # fmt: skip


def what_seeds_carry(seeds: Sequence[int]) -> tuple[str, ...]:
    """Return what the protocol says of simulated seeds, for a report."""
    said = {
        DEVELOPMENT: min(seeds) < FIRST_CHOOSING,
        CHOSEN: any(FIRST_CHOOSING <= seed < FIRST_SPARE for seed in seeds),
        REPORTING: min(seeds) >= FIRST_REPORTING,
    }
    return tuple(sentence for sentence, holds in said.items() if holds)


def simulated_setting(
    seeds: Sequence[int],
    params: Params,
    root: Path,
    *,
    sources: Sequence[str] = (),
    targets: Sequence[str] = (),
    shifts: Sequence[Shifts] = (),
    design: Mapping[str, Any] | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> Setting:
    """Return the setting on simulated plates, rendered if they are not there yet.

    Args:
        seeds: Seeds of the experiment; also those of the training.
        params: Parameters.
        root: Folder of the benchmark.
        sources: Laboratories that are trained on; `lab_a` when not given.
        targets: Laboratories that are applied to; the demo's other ones when not given.
        shifts: Each makes of every target a target of its own, between the source and that laboratory; the laboratory
            itself when not given.
        design: Fields of the `Design` that differ from the demo's.
        processes: Plates rendered at the same time.
        progress: Called after every plate.

    Raises:
        ConfigError: A laboratory is unknown, the names leave nothing to do, or it is not clear where a shift begins.
    """
    trained = tuple(sources) or (next(iter(DEMO_BATCHES)),)
    applied = tuple(targets) or tuple(name for name in DEMO_BATCHES if name not in trained)
    require_pairs(trained, applied)
    most, usual = max(DEMO_BATCHES.values()), min(DEMO_BATCHES.values())
    made: dict[str, tuple[Laboratory, Shifts]] = {}
    if shifts:
        base = find_laboratory(_begins(trained))
        for target, shift in ((find_laboratory(name), it) for name in applied if name != base.name for it in shifts):
            made[f"{target.name}-{name_of(shift)}"] = (shifted_by_kind(base, target, shift), shift)
        applied = tuple(made)
    batches = {name: most if name in trained else usual for name in dict.fromkeys((*trained, *applied))}
    plan = simulation_plan(
        params, batches, design=design, laboratories={name: laboratory for name, (laboratory, _) in made.items()},
        layouts={name: shift for name, (_, shift) in made.items()},
    )  # fmt: skip
    data: dict[int, DataSpec] = {}
    for seed in seeds:
        spec = Simulated(seed, plan, root / "plates")
        spec.load(processes=processes, progress=progress)
        data[seed] = spec
    return Setting(data, trained, applied, params, root, 1 / plan.design.mechanisms, simulated=True)


def _begins(trained: Sequence[str]) -> str:
    """Return the laboratory that shifts begin at."""
    if len(trained) > 1:
        problem = Problem("--source", ", ".join(trained), "one source", "Give a table for each source.")
        raise ConfigError("Shifts begin at the source that is trained on: there can be only one.", [problem])
    return trained[0]


def ingested_setting(
    seeds: Sequence[int],
    params: Params,
    root: Path,
    *,
    folders: Sequence[Path],
    labels: Path,
    sources: Sequence[str],
    targets: Sequence[str] = (),
) -> Setting:
    """Return the setting on ingested plates.

    Args:
        seeds: Seeds of the training.
        params: Parameters.
        root: Folder of the benchmark.
        folders: Dataset folders.
        labels: Label table.
        sources: Sources that are trained on.
        targets: Sources that are applied to; all others of the folders when not given.

    Raises:
        CodaError: The plates or labels cannot be used.
    """
    if not sources:
        problem = Problem("--source", "nothing", "the source to train on", "Name one, for example --source source_3.")
        raise ConfigError("It is not said what to train on.", [problem])
    if not targets:
        from coda.plates.dataset import open_batches

        found = [batch.manifest.source for folder in folders for batch in open_batches(folder)]
        targets = [name for name in dict.fromkeys(found) if name not in sources or len(sources) > 1]
    require_pairs(sources, targets)
    wanted = tuple(dict.fromkeys((*sources, *targets)))
    spec = ingested(folders, labels, params, wanted)
    classes = len(loaded(spec).labels.classes)
    return Setting(
        dict.fromkeys(seeds, spec), tuple(sources), tuple(targets), params, root, 1 / classes, simulated=False
    )


def require_pairs(sources: Sequence[str], targets: Sequence[str]) -> None:
    """Refuse sources and targets that leave nothing to do.

    Raises:
        ConfigError: A source has no target but itself.
    """
    problems = [
        Problem("--target", ", ".join(targets) or "nothing", f"a source other than {source}", "Name another target.")
        for source in sources
        if not set(targets) - {source}
    ]
    raise_if_any(ConfigError, "There is no target to apply a model to.", problems)


def machine() -> str:
    """Return a short description of the machine: processor, cores, and the versions that decide its speed."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    accelerator = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores{accelerator}, torch {torch.__version__}"
