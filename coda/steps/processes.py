"""A training step in several processes of one machine, one a GPU, started by torchrun (docs/training.md).

Who calls the step sees no difference: the same result, the same errors, the same answer to SIGTERM. On several
machines, torchrun starts ``coda step pretrain`` on each, and the processes join each other.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from coda.config.params import Compute, Params
from coda.errors import CodaError, ConfigError, ContractError, IntegrityError, Problem, StoppedError, TransientError
from coda.settings import Settings, without_secrets
from coda.steps.keeping import stopping_on_sigterm
from coda.training.distributed import joined

REQUEST, FAILURE, NUMBERS = "request.json", "failure.json", "numbers.json"
LOOK_S = 0.5
"""Seconds between looks at whether the processes have ended, or this one was asked to stop."""


def processes_to_start(compute: Compute) -> int:
    """Return how many processes a step must start; 1 when it works alone, or is one of several already."""
    if "WORLD_SIZE" in os.environ:
        return 1
    return compute.processes or max(1, torch.cuda.device_count())


def run_in_processes(step: str, paths: dict[str, Path], count: int, *, params: Params, settings: Settings,
                     run_id: str, texts: Mapping[str, str]) -> dict[str, float]:  # fmt: skip
    """Run a step in several processes of this machine and return its numbers.

    Args:
        step: Name of the step, a key of `_step`.
        paths: Its folders by the names of its arguments.
        count: Processes.
        params: Parameters.
        settings: Where the services are.
        run_id: The run.
        texts: Its other arguments, by their names.

    Raises:
        CodaError: What the first process to fail raised.
    """
    with tempfile.TemporaryDirectory(prefix="coda-processes-") as name, stopping_on_sigterm() as asked:
        folder = Path(name)
        request = {
            "step": step, "paths": {key: str(path.resolve()) for key, path in paths.items()}, "run_id": run_id,
            "texts": dict(texts), "params": params.model_dump(mode="json"),
            "settings": settings.model_dump(mode="json"),
        }  # fmt: skip
        (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        started = subprocess.Popen([*command, "-m", "coda.steps.processes", str(folder)])
        code = _wait(started, asked)
        if (folder / FAILURE).is_file():
            _raise(json.loads((folder / FAILURE).read_text(encoding="utf-8")))
        if code:
            problem = Problem(f"step {step!r}", f"exit code {code}", "all processes to finish", "Read the log above.")
            raise StoppedError("A process of the step died.", [problem])
        numbers: dict[str, float] = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        return numbers


def _wait(started: "subprocess.Popen[bytes]", asked: Callable[[], bool]) -> int:
    told = False
    try:
        while True:
            try:
                return started.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                if asked() and not told:
                    # torchrun hands the signal on; each process writes its checkpoint and ends
                    started.send_signal(signal.SIGTERM)
                    told = True
    finally:
        if started.poll() is None:
            started.kill()
            started.wait()


def _raise(failure: dict[str, Any]) -> None:
    kinds = {kind.__name__: kind for kind in (ConfigError, ContractError, IntegrityError, StoppedError, TransientError)}
    problems = [Problem(**problem) for problem in failure["problems"]]
    raise kinds.get(failure["error"], CodaError)(failure["message"], problems)


def _step(name: str) -> Callable[..., dict[str, float]]:
    from coda.steps.pretrain import pretrain

    return {"pretrain": pretrain}[name]


def main(folder: Path) -> None:
    """Be one of the processes: join the others, run the step, leave its numbers or its error in the folder."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    paths = {name: Path(path) for name, path in request["paths"].items()}
    with joined() as world:
        try:
            numbers = _step(request["step"])(
                **paths,
                params=Params.model_validate_json(json.dumps(request["params"])),
                settings=Settings.model_validate(request["settings"]),
                run_id=request["run_id"],
                **request["texts"],
            )
        except CodaError as error:
            described = {
                "error": type(error).__name__,
                "message": error.message,
                "problems": [asdict(problem) for problem in error.problems],
            }
            draft = folder / f"{FAILURE}.{world.rank}"
            draft.write_text(without_secrets(json.dumps(described)), encoding="utf-8")
            draft.replace(folder / FAILURE)
            raise SystemExit(error.exit_code) from error
        if world.first:
            (folder / NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
