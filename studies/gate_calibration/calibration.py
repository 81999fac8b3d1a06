"""Calibration: how well label-free metrics rank true accuracy, what the gate makes of them, and its thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coda.benchmark.adapting import work
from coda.benchmark.jobs import EventCallback, Job, Outcome, attempt_jobs
from coda.benchmark.simulation_plan import DEMO_BATCHES, simulation_plan
from coda.benchmark.source_models import Training
from coda.benchmark.specs import Simulated
from coda.config.params import Params
from coda.errors import ConfigError, Problem, raise_if_any
from coda.simulation.laboratories import find_laboratory
from coda.simulation.shifts import STRONGEST_SHIFT, shifted
from studies.gate_calibration.calibration_estimates import estimate_table
from studies.gate_calibration.calibration_gate import gate_outcomes, gate_sets
from studies.gate_calibration.calibration_policy import Derived, derive_policy
from studies.gate_calibration.calibration_ranks import rank_table
from studies.gate_calibration.calibration_report import Part, write_calibration
from studies.gate_calibration.calibration_target import Target

Wells = Mapping[str, str | None]

LAYOUTS: Mapping[str, tuple[int, Wells]] = {
    "balanced": (2, {}),
    "unbalanced": (
        2,
        {
            "protein synthesis inhibitor": None, "proteasome inhibitor": None,
            "Rho kinase inhibitor": "tubulin inhibitor", "mTOR inhibitor": "tubulin inhibitor",
        },
    ),
    "first batch": (1, {}),
}  # fmt: skip
"""Layout -> batches of the target, and what wells hold instead. Unbalanced: four of eight mechanisms are missing, and
one of the others fills half of the wells. First batch: replicates can be compared across plates only."""

RUNS = (
    "lab_a:lab_b:0.5:balanced", "lab_a:lab_b:1.0:first batch", "lab_a:lab_b:1.3:unbalanced",
    "lab_a:lab_c:1.0:balanced", "lab_b:lab_a:1.0:balanced", "lab_b:lab_c:1.3:unbalanced",
)  # fmt: skip
"""Runs of each seed: source, target, strength of the shift, layout. A fraction of all combinations in which every
source pair, strength and layout meets several of the others."""


OTHER = {"lab_a": "lab_b", "lab_b": "lab_a", "lab_c": "lab_a"}
"""Source -> the one whose heads and plates are material for its broken models."""


@dataclass(frozen=True)
class Calibration:
    """What a calibration leaves.

    Attributes:
        choose: What the thresholds follow from: ranks, outcomes by policy.
        report: The same on the other seeds.
        derived: The policy that follows; None where no run to choose on is finished.
        page: The report.
        outcomes: Every job, failed ones among them.
    """

    choose: Part
    report: Part
    derived: Derived | None
    page: Path
    outcomes: list[Outcome]


def targets(
    runs: Sequence[str], seeds: Sequence[int], params: Params, root: Path, *,
    design: Mapping[str, Any] | None = None, gate_only: bool = False,
) -> list[Target]:  # fmt: skip
    """Lay out the targets of some seeds.

    Args:
        runs: Each 'source:target:shift:layout'.
        seeds: Seeds of plates and models.
        params: Parameters; at the demo's scale a target takes about a minute.
        root: Folder of the benchmark.
        design: Fields of the plates' `Design` that differ from the demo's.
        gate_only: Whether only what the gate reads is measured.

    Raises:
        ConfigError: A run cannot be understood.
    """
    parsed = _parsed(runs)
    found = []
    for seed in seeds:
        for source, target, shift, layout in parsed:
            trained, other = (_training(name, seed, params, root, design) for name in (source, OTHER[source]))
            batches, wells = LAYOUTS[layout]
            laboratory = shifted(find_laboratory(source), find_laboratory(target), shift)
            plan = simulation_plan(
                params, {target: batches}, laboratories={target: laboratory}, wells={target: wells}, design=design
            )
            data = Simulated(seed, plan, root / "data")
            found.append(Target(trained, data, target, shift, layout, params, other, gate_only=gate_only))
    return found


def _training(source: str, seed: int, params: Params, root: Path, design: Mapping[str, Any] | None) -> Training:
    plates = simulation_plan(params, {source: DEMO_BATCHES["lab_a"]}, design=design)
    return Training(Simulated(seed, plates, root / "data"), source, "cb", params, seed, root)


def calibrate(
    params: Params,
    out: Path,
    root: Path,
    *,
    choose_seeds: Sequence[int],
    report_seeds: Sequence[int],
    runs: Sequence[str] = RUNS,
    design: Mapping[str, Any] | None = None,
    processes: int = 1,
    report: EventCallback | None = None,
) -> Calibration:
    """Calibrate the label-free metrics and the gate, and write the report.

    Args:
        params: Parameters; `gate.policy` is the policy that is compared with.
        out: Folder of the report.
        root: Folder that jobs and rendered plates are kept in.
        choose_seeds: Seeds that thresholds are derived from.
        report_seeds: Seeds that they are reported on; none may be among the others.
        runs: What is run for each seed, each 'source:target:shift:layout'.
        design: Fields of the plates' `Design` that differ from the demo's.
        processes: Jobs at the same time.
        report: Called with every event of a job.

    Raises:
        ConfigError: A seed is both, or a run cannot be understood.
    """
    both = sorted(set(choose_seeds) & set(report_seeds))
    if both:
        problem = Problem("seeds", f"{both} in both lists", "each seed in one", "Report on seeds nobody chose with.")
        raise ConfigError("What is chosen and what is reported must not share seeds.", [problem])
    laid_out = {name: targets(runs, seeds, params, root, design=design) for name, seeds in
                (("choose", choose_seeds), ("report", report_seeds))}  # fmt: skip
    outcomes = attempt_jobs(jobs_of([*laid_out["choose"], *laid_out["report"]]), work, root,
                             processes=processes, report=report)  # fmt: skip
    finished = {outcome.job.digest: outcome.result for outcome in outcomes if outcome.result is not None}
    results = {
        name: [finished[digest] for target in items if (digest := target.job().digest) in finished]
        for name, items in laid_out.items()
    }
    samples, present = params.gate.bootstrap, params.gate.policy
    ranks = {name: rank_table(items, seed=params.seed) for name, items in results.items()}
    sets = {name: gate_sets(items) for name, items in results.items()}
    derived = None
    if results["choose"]:
        derived = derive_policy(results["choose"], sets["choose"], ranks["choose"], present, samples=samples)
    policies = [present, *([derived.policy] if derived else [])]
    parts = []
    for name, seeds in (("choose", choose_seeds), ("report", report_seeds)):
        gates = {policy.title: gate_outcomes(sets[name], policy, samples=samples) for policy in policies}
        parts.append(Part(tuple(seeds), results[name], ranks[name], gates if sets[name] else {}))
    page = write_calibration(out, parts[0], parts[1], derived, present, outcomes)
    return Calibration(parts[0], parts[1], derived, page, outcomes)


def plan_lines(
    runs: Sequence[str], choose_seeds: Sequence[int], report_seeds: Sequence[int], params: Params, root: Path
) -> list[str]:
    """Return what will be done, in lines, and how much of it is there already.

    Raises:
        ConfigError: A run cannot be understood.
    """
    items = targets(runs, [*choose_seeds, *report_seeds], params, root)
    jobs = jobs_of(items)
    kept = sum(job.file(root).is_file() for job in jobs)
    lines = [f"{len(jobs) - len(items)} source models, {len(items)} targets; {kept} of {len(jobs)} are there already."]
    for run in runs:
        source, target, shift, layout = run.split(":")
        lines.append(f"  {source} to {target}, shift {shift}, {layout}")
    choosing, reporting = (", ".join(map(str, seeds)) for seeds in (choose_seeds, report_seeds))
    return [*lines, f"  each for seeds {choosing} (choosing) and {reporting} (reporting)"]


def as_json(calibration: Calibration) -> dict[str, Any]:
    """Return all numbers of a calibration but those of single models, for programs."""
    content: dict[str, Any] = {}
    for name, part in (("choose", calibration.choose), ("report", calibration.report)):
        content[name] = {
            "seeds": part.seeds, "runs": len(part.runs), "ranks": part.ranks, "gates": part.summary(),
            "decisions": part.gates, "estimates": estimate_table(part.runs),
        }  # fmt: skip
    if calibration.derived is not None:
        derived = calibration.derived
        content["derived"] = {
            "policy": derived.policy.model_dump(mode="json"), "reasons": derived.reasons, "tried": derived.tried,
            "limits": derived.limits, "adopt": adopt(calibration),
        }  # fmt: skip
    return content


def adopt(calibration: Calibration) -> bool | None:
    """Return whether the derived policy is no worse than the present one on the reporting seeds.

    No worse: neither more releases that are worse than none (by any amount, and by the margin), nor a larger mean
    regret. None where there is nothing to compare.
    """
    if calibration.derived is None or len(calibration.report.gates) < 2 or not calibration.report.runs:
        return None
    old, new = calibration.report.gates.values()
    counts = all(new[word].sum() <= old[word].sum() for word in ("worse", "worse_margin"))
    return bool(counts and new["regret"].mean() <= old["regret"].mean() + 1e-12)


def jobs_of(items: Sequence[Target]) -> list[Job]:
    """Return the jobs of these targets after those that they build upon, each once."""
    trainings: dict[str, Job] = {}
    for target in items:
        for training in (target.trained, target.other):
            trainings.setdefault(training.job().digest, training.job())
    return [*trainings.values(), *(target.job() for target in items)]


def _parsed(runs: Sequence[str]) -> list[tuple[str, str, float, str]]:
    found, problems = [], []
    expected = f"'source:target:shift:layout', shift 0 to {STRONGEST_SHIFT:g}, layout one of {', '.join(LAYOUTS)}"
    for run in runs:
        parts = run.split(":")
        try:
            source, target, shift, layout = parts[0], parts[1], float(parts[2]), parts[3]
        except (IndexError, ValueError):
            problems.append(Problem("runs", repr(run), expected, "Write for example 'lab_a:lab_b:1.0:balanced'."))
            continue
        if len(parts) != 4 or layout not in LAYOUTS or source == target or not 0 <= shift <= STRONGEST_SHIFT:
            problems.append(Problem("runs", repr(run), expected, "Write for example 'lab_a:lab_b:1.0:balanced'."))
            continue
        found.append((source, target, shift, layout))
    raise_if_any(ConfigError, "The calibration cannot be laid out.", problems)
    return found
