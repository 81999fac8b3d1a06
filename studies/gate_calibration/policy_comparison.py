"""Policies of the gate held against each other on the same sets of candidates of known truth (docs/protocol.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coda.benchmark.adapting import work
from coda.benchmark.jobs import EventCallback, Outcome, attempt_jobs
from coda.config.params import Params
from coda.config.policy import GatePolicy
from studies.gate_calibration.calibration import RUNS, jobs_of, targets
from studies.gate_calibration.calibration_gate import MARGIN, gate_outcomes, gate_sets

WANTED_SETS = 300
"""Sets that the protocol asks for before a default follows from them."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison leaves.

    Attributes:
        runs: Targets that are finished.
        decisions: Policy -> one row a set (`gate_outcomes`).
        summary: One row a policy and kind of set (`summarise_policy`).
        outcomes: Every job, failed ones among them.
    """

    runs: int
    decisions: Mapping[str, pd.DataFrame]
    summary: pd.DataFrame
    outcomes: list[Outcome]


def compare_policies(
    params: Params,
    root: Path,
    policies: Sequence[GatePolicy],
    *,
    seeds: Sequence[int],
    runs: Sequence[str] = RUNS,
    design: Mapping[str, Any] | None = None,
    processes: int = 1,
    report: EventCallback | None = None,
) -> Comparison:
    """Make good and broken models on the targets of some seeds, and let every policy decide on the same sets.

    Args:
        params: Parameters of training and adaptation, and the number of bootstrap samples.
        root: Folder that jobs and rendered plates are kept in.
        policies: What is compared.
        seeds: Seeds of plates and models.
        runs: What is run for each seed, each 'source:target:shift:layout'.
        design: Fields of the plates' `Design` that differ from the demo's.
        processes: Jobs at the same time.
        report: Called with every event of a job.

    Raises:
        ConfigError: A run cannot be understood.
    """
    items = targets(runs, seeds, params, root, design=design, gate_only=True)
    outcomes = attempt_jobs(jobs_of(items), work, root, processes=processes, report=report)
    wanted = {target.job().digest for target in items}
    finished = [outcome.result for outcome in outcomes if outcome.result is not None and outcome.job.digest in wanted]
    sets = gate_sets(finished)
    decisions = {policy.title: gate_outcomes(sets, policy, samples=params.gate.bootstrap) for policy in policies}
    rows = [{"policy": name, **row} for name, table in decisions.items() if sets for row in summarise_policy(table)]
    return Comparison(len(finished), decisions, pd.DataFrame(rows), outcomes)


def summarise_policy(decisions: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what one policy's decisions were worth, over sound sets, sets with a broken model, and all.

    Returns:
        One row each: ``sets``; ``released``, ``held`` and ``refused``; ``worse`` (released, and worse than none by more
        than `MARGIN`); ``caught`` (of sets with a broken model, those whose broken model does not serve); ``gainful``
        (sets in which some candidate is better than none by more than `MARGIN`) and ``power`` (share of them in which
        what serves is); means of ``regret`` and of ``gain`` (what serves minus none).
    """
    parts = (("sound", ~decisions["broken"]), ("broken", decisions["broken"]), ("all", decisions["broken"].notna()))
    rows = []
    for name, chosen in parts:
        part = decisions[chosen]
        gainful = part["best"] > part["unadapted"] + MARGIN
        served = part["served"] > part["unadapted"] + MARGIN
        rows.append(
            {
                "sets_of": name, "sets": len(part),
                **{word: int((part["outcome"] == kind).sum())
                   for word, kind in (("released", "release"), ("held", "hold"), ("refused", "refuse"))},
                "worse": int(part["worse_margin"].sum()),
                "caught": int((part["broken"] & ~part["broken_released"]).sum()),
                "gainful": int(gainful.sum()),
                "power": float(served[gainful].mean()) if gainful.any() else float("nan"),
                "regret": float(part["regret"].mean()), "gain": float((part["served"] - part["unadapted"]).mean()),
            }
        )  # fmt: skip
    return rows
