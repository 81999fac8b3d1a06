"""One function to run a pipeline, whatever runs it."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from coda.config import Params
from coda.contracts import RunRecord
from coda.errors import CodaError, ConfigError, Problem, TransientError, raise_if_any
from coda.runners.spec import compiled_path
from coda.settings import Settings
from coda.steps.context import clear_failure
from coda.steps.record import read_run

PipelineName = Literal["training", "adaptation"]
Say = Callable[[str], None]
"""Takes one line for the person who waits."""

ARGUMENTS: dict[str, tuple[dict[str, type], dict[str, type]]] = {
    "training": ({"run_id": str, "manifest_uris": list, "labels": str, "params": str}, {}),
    "adaptation": ({"run_id": str, "manifest_uri": str, "params": str}, {"manifest_digest": str}),
}
"""Pipeline -> its arguments that must be given, and those that may be."""

MAX_ARGUMENT_BYTES = 100_000
"""Linux refuses a command line argument above 128 kB, and the local runners pass all inputs in one."""

ATTEMPTS = 3
"""Times a run is started when services are away."""

BACKOFF_S = 10.0
"""Seconds before the second attempt; each further wait is twice as long."""


@dataclass(frozen=True)
class Job:
    """One run as a runner takes it.

    Attributes:
        pipeline: Which pipeline.
        compiled: Its compiled YAML.
        arguments: Values of its parameters; ``run_id`` among them.
        work: Folder for the runs of this machine.
        settings: Where the services are.
        say: Takes progress lines.
        wait: Whether to wait for the end; runners of this machine always do.
    """

    pipeline: PipelineName
    compiled: Path
    arguments: Mapping[str, Any]
    work: Path
    settings: Settings
    say: Say
    wait: bool = True

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.arguments["run_id"])


class Runner(Protocol):
    """Runs one job to its end, or submits it when the job does not wait."""

    def __call__(self, job: Job) -> Path | None:
        """Return the log file, when there is one.

        Raises:
            CodaError: A step failed; the error is the step's own, with its exit code.
        """


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        run_id: The run.
        pipeline: Which pipeline it was.
        outcome: 'released', 'incumbent_kept', 'held', 'refused', or 'submitted' when nobody waited for the end.
        sentence: The end in plain words.
        record: Run record; none when nobody waited.
        log: File with everything the steps printed, on this machine.
        seconds: Seconds from start to end, of this attempt.
    """

    run_id: str
    pipeline: PipelineName
    outcome: str
    sentence: str
    record: RunRecord | None
    log: Path | None
    seconds: float


def run_pipeline(
    name: PipelineName,
    arguments: Mapping[str, Any],
    *,
    runner: str | Runner,
    settings: Settings,
    work: Path,
    compiled: Path | None = None,
    say: Say | None = None,
    wait: bool = True,
    attempts: int = ATTEMPTS,
    backoff_s: float = BACKOFF_S,
) -> RunOutcome:
    """Run a pipeline, and return how it ended.

    A run that already ended is not run again: its record is returned. A run of the same name that was broken off
    resumes where it stopped.

    Args:
        name: 'training' or 'adaptation'.
        arguments: Parameters of the pipeline: ``run_id``; ``manifest_uris`` and ``labels``, or ``manifest_uri``;
            ``params`` (`Params` or its JSON).
        runner: Name of an engine (`coda.runners.engines`), or any `Runner`.
        settings: Where the services are.
        work: Folder that holds one folder a run on this machine.
        compiled: Compiled pipeline; the one beside its definition when not given.
        say: Takes one line when a step starts or ends.
        wait: Whether to wait for a run on Kubeflow.
        attempts: Times the run is started when services are away.
        backoff_s: Seconds before the second start; doubled each time.

    Raises:
        ConfigError: An argument is missing, unknown or unusable; the runner is not configured.
        CodaError: A step failed. The error has the type, the exit code and the reasons of that step.
    """
    start = runner if callable(runner) else _runner(runner)
    values = checked_arguments(name, arguments)
    started = time.monotonic()
    tell = say or _silent
    job = Job(name, compiled or compiled_path(name), values, work, settings, tell, wait)
    done = read_run(job.run_id, settings)
    log: Path | None = None
    if done is None:
        log = _attempt(start, job, attempts, backoff_s)
        done = read_run(job.run_id, settings)
    else:
        tell(f"{job.run_id} ended before ({done.outcome}); nothing is run again.")
    seconds = time.monotonic() - started
    if done is None and wait:
        problem = Problem(f"runs/{job.run_id}/run.json", "nothing", "the record of the run", f"Read the log: {log}.")
        raise CodaError(f"All steps of {job.run_id} ended well, but the run left no record.", [problem])
    if done is None:
        return RunOutcome(job.run_id, name, "submitted", f"{job.run_id} is submitted.", None, log, seconds)
    return RunOutcome(job.run_id, name, done.outcome, done.sentence, done, log, seconds)


def checked_arguments(name: PipelineName, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pipeline's arguments as KFP takes them.

    Raises:
        ConfigError: All that is wrong with them.
    """
    values = {key: value.model_dump_json() if isinstance(value, Params) else value for key, value in arguments.items()}
    required, optional = ARGUMENTS[name]
    problems = [
        Problem(key, "nothing", f"a value for the {name} pipeline", "Give it.") for key in required if key not in values
    ]
    known = {**required, **optional}
    for key, value in values.items():
        if key not in known:
            problems.append(Problem(key, "an unknown argument", f"one of {', '.join(known)}", "Remove it."))
        elif not isinstance(value, known[key]) or (key in required and not value):
            problems.append(
                Problem(key, repr(value)[:100], f"a {known[key].__name__} that is not empty", "Correct it.")
            )
    if isinstance(values.get("run_id"), str) and not _is_slug(values["run_id"]):
        expected = "letters, digits, dot, underscore and hyphen, at most 200"
        problems.append(Problem("run_id", repr(values["run_id"]), expected, "Choose another name."))
    size = len(json.dumps(values, default=str).encode())
    if size > MAX_ARGUMENT_BYTES:
        remedy = "Train on fewer batches at once, or put several plates into one batch."
        problems.append(Problem("arguments", f"{size} bytes", f"at most {MAX_ARGUMENT_BYTES}", remedy))
    raise_if_any(ConfigError, f"The {name} pipeline cannot be started.", problems)
    return values


def _attempt(run: Runner, job: Job, attempts: int, backoff_s: float) -> Path | None:
    for attempt in range(1, attempts + 1):
        try:
            clear_failure(job.run_id, job.settings)
            return run(job)
        except TransientError as error:
            if attempt == attempts:
                raise
            pause = backoff_s * 2 ** (attempt - 1)
            job.say(f"A service was away ({error.message}); trying again in {pause:.0f} s.")
            time.sleep(pause)
    raise ConfigError("A run needs at least one attempt.")


def _runner(name: str) -> Runner:
    from coda.runners.engines import ENGINES

    if name not in ENGINES:
        known = ", ".join(f"{engine.name} ({engine.says})" for engine in ENGINES.values())
        problem = Problem("runner", repr(name), f"one of {known}", "Name one of these.")
        raise ConfigError("There is no such engine.", [problem])
    return ENGINES[name].run


def _is_slug(text: str) -> bool:
    return (
        0 < len(text) <= 200 and text[0].isalnum() and all(c.isalnum() or c in "._-" for c in text) and text.isascii()
    )


def _silent(line: str) -> None:
    """Take a progress line and keep it to itself."""
