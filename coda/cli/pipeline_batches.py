"""`coda pipeline run adaptation` over several batches: one run each, one after the other, and an account at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from coda.errors import CodaError, IntegrityError, Problem, TransientError
from coda.runners import run_pipeline
from coda.settings import Settings
from coda.trigger.by_hand import Plan, plan_of


def run_batches(
    uris: Sequence[str], params: Any, *, run_id: str, runner: str, settings: Settings, work: Path, wait: bool,
    console: Console,
) -> None:  # fmt: skip
    """Adapt to each batch in a run of its own; a batch that fails loses no other.

    Args:
        uris: Manifests.
        params: Parameters.
        run_id: Begins the names of the runs; empty for the names that the trigger gives.
        runner: What runs them.
        settings: Where the services are.
        work: Folder for the runs of this machine.
        wait: Whether to wait for the end of runs on Kubeflow.
        console: Where it is told.

    Raises:
        CodaError: Batches failed. The error is of their kind where they agree on one, of the integrity of bytes where
            any is, and has the problems of all.
        TransientError: A service is away: the batches after it were not tried, and the same command resumes with them.
    """
    plan = plan_of(uris, settings, prefix=run_id)
    _tell(plan, console)
    told: dict[str, str] = {}
    failed = dict(plan.unusable)
    waiting = [item for item in plan.batches if not item.skip]
    for number, item in enumerate(waiting, 1):
        console.print(f"[{number} of {len(waiting)}] {item.batch_id}: run {item.run_id}", markup=False)
        arguments = {
            "run_id": item.run_id, "params": params, "manifest_uri": item.uri,
            "manifest_digest": item.version.digest,
        }  # fmt: skip
        try:
            outcome = run_pipeline(
                "adaptation", arguments, runner=runner, settings=settings, work=work, wait=wait,
                say=lambda line: console.print(f"  {line}", markup=False),
            )  # fmt: skip
        except TransientError as error:
            left = ", ".join(one.batch_id for one in waiting[number - 1 :])
            console.print(f"  Stopped: {error.message} Not run: {left}. The same command resumes.", markup=False)
            raise
        except CodaError as error:
            failed[item.batch_id] = error
            console.print(f"  Failed: {error.message}", markup=False)
            continue
        told[item.batch_id] = outcome.outcome
        console.print(f"  {outcome.outcome.replace('_', ' ').capitalize()}: {outcome.sentence}", markup=False)
    counts = {name: list(told.values()).count(name) for name in dict.fromkeys(told.values())}
    parts = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items()]
    parts += [f"{len(plan.batches) - len(waiting)} skipped"] if len(plan.batches) > len(waiting) else []
    parts += [f"{len(failed)} failed"] if failed else []
    console.print(f"{len(plan.batches) + len(plan.unusable)} batch(es): {', '.join(parts)}.", markup=False)
    if failed:
        raise _failure(failed)


def _tell(plan: Plan, console: Console) -> None:
    console.print(f"{len(plan.batches) + len(plan.unusable)} batch(es), each with a run of its own, in this order:")
    for item in plan.batches:
        what = f"skipped: {item.skip}" if item.skip else "to run"
        console.print(f"  {item.batch_id} ({item.created_at:%Y-%m-%d}): {what}", markup=False)
    for where, error in plan.unusable.items():
        console.print(f"  {where}: cannot be used: {error.message}", markup=False)


def _failure(failed: Mapping[str, CodaError]) -> CodaError:
    kinds = {type(error) for error in failed.values()}
    kind = next(iter(kinds)) if len(kinds) == 1 else IntegrityError if IntegrityError in kinds else CodaError
    problems = [
        replace(problem, where=f"{name}: {problem.where}")
        for name, error in failed.items()
        for problem in error.problems or (Problem(name, error.message, "a batch that can be run", "See above."),)
    ]
    return kind(f"{len(failed)} batch(es) failed; the others are as listed above.", problems)
