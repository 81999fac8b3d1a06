"""A training step in several processes, one a GPU, started by torchrun (docs/training.md).

Who calls the step sees no difference: the same result, the same errors, the same answer to SIGTERM. The processes of
one machine hand over what they made in a folder, those of several machines below an address in object storage
(`coda.steps.nodes`). Every process does all that the step does; what the first one writes is kept.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from coda.config.params import Compute, Params
from coda.config.recorded import Today
from coda.errors import CodaError, ConfigError, ContractError, IntegrityError, Problem, StoppedError, TransientError
from coda.settings import Settings, read_settings, without_secrets
from coda.steps.declarations import STEPS
from coda.steps.keeping import stopping_on_sigterm
from coda.storage.objects import ObjectStore
from coda.training.distributed import joined

REQUEST, FAILURE, NUMBERS, SENT, OUT = "request.json", "failure.json", "numbers.json", "sent", "out"
LOOK_S = 0.5
"""Seconds between looks at whether the processes have ended, or this one was asked to stop."""


def processes_to_start(compute: Compute, batch_size: int) -> int:
    """Return how many processes a step must start; 1 when it works alone, or is one of several already.

    Args:
        compute: ``processes``: so many; 0 for one a GPU, as far as the batch can be shared evenly.
        batch_size: Of all processes together.
    """
    if "WORLD_SIZE" in os.environ:
        return 1
    if compute.processes:
        return compute.processes
    return next(count for count in range(max(1, torch.cuda.device_count()), 0, -1) if batch_size % count == 0)


def request_of(
    step: str,
    paths: Mapping[str, Path],
    params: Params | Today,
    settings: Settings,
    run_id: str,
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """Return what processes are asked to do, as JSON."""
    stated = None
    if isinstance(params, Today):
        stated, params = {"stated": dict(params.stated), "elsewhere": params.elsewhere}, params.params
    return {
        "stated": stated,
        "step": step, "paths": {key: str(path.resolve()) for key, path in paths.items()}, "run_id": run_id,
        "texts": dict(texts), "params": params.model_dump(mode="json"), "settings": settings.model_dump(mode="json"),
    }  # fmt: skip


def run_in_processes(step: str, paths: dict[str, Path], count: int, *, params: Params | Today, settings: Settings,
                     run_id: str, texts: Mapping[str, str] = {}) -> dict[str, float]:  # fmt: skip
    """Run a step in several processes of this machine and return its numbers.

    Args:
        step: Name of the step, a key of `_step`.
        paths: Its folders by the names of its arguments.
        count: Processes.
        params: Parameters, with what was stated of them where the step asks for it.
        settings: Where the services are.
        run_id: The run.
        texts: Its other arguments, by their names.

    Raises:
        CodaError: What the first process to fail raised.
    """
    with tempfile.TemporaryDirectory(prefix="coda-processes-") as name, stopping_on_sigterm() as asked:
        folder = Path(name)
        request = request_of(step, paths, params, settings, run_id, texts)
        (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        started = subprocess.Popen([*command, "-m", "coda.steps.torchrun", str(folder)])
        code = _wait(started, asked)
        if (folder / FAILURE).is_file():
            raise recorded(json.loads((folder / FAILURE).read_text(encoding="utf-8")))
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


def recorded(failure: dict[str, Any]) -> CodaError:
    """Return the error that a process recorded."""
    kinds = {kind.__name__: kind for kind in (ConfigError, ContractError, IntegrityError, StoppedError, TransientError)}
    problems = [Problem(**problem) for problem in failure["problems"]]
    return kinds.get(failure["error"], CodaError)(failure["message"], problems)


def _step(name: str) -> Callable[..., dict[str, float]]:
    module, _, function = STEPS[name].processes.partition(":")
    step: Callable[..., dict[str, float]] = getattr(import_module(module), function)
    return step


def main(place: str) -> None:
    """Be one of the processes of a step.

    Args:
        place: The folder with the request, for processes of one machine; or an ``s3://`` address below which it lies.
    """
    if not place.startswith("s3://"):
        _take_part(Path(place))
        return
    store = ObjectStore(place, read_settings().s3_endpoint)
    with tempfile.TemporaryDirectory(prefix="coda-node-") as name:
        folder = Path(name)
        store.download_folder(SENT, folder)
        try:
            _take_part(folder)
        finally:
            if (folder / FAILURE).is_file():
                store.upload(folder / FAILURE, FAILURE)
        if (folder / NUMBERS).is_file():
            store.upload_folder(folder / OUT, OUT, last=())
            # it says that there is a result, so it comes last
            store.upload(folder / NUMBERS, NUMBERS)


def _take_part(folder: Path) -> None:
    """Join the others, run the step, leave its numbers or its error in the folder."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    paths = {name: folder / path for name, path in request["paths"].items()}
    values, stated = Params.model_validate_json(json.dumps(request["params"])), request["stated"]
    params: Params | Today = values if stated is None else Today(values, **stated)
    with joined() as world:
        if not world.first:
            paths |= {made: folder / f"{made}.{world.rank}" for made in (OUT, "models", "features") if made in paths}
        try:
            numbers = _step(request["step"])(
                **paths,
                params=params,
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
    main(sys.argv[1])
