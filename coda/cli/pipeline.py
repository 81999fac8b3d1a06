"""`coda pipeline`: run the training and adaptation pipelines, or compile them."""

import secrets
import subprocess
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from coda.cli.options import DEFAULT_PARAMS, Engine, EngineChoice, Overlays, ParamsFile, Settings_, read_params
from coda.errors import CodaError, ConfigError, Problem

app = typer.Typer(no_args_is_help=True, help="Run or compile the training and adaptation pipelines.")

WORK = Path("runs/pipelines")


class Pipeline(StrEnum):
    """Pipelines there are."""

    training = "training"
    adaptation = "adaptation"


@app.command()
def run(
    pipeline: Annotated[Pipeline, typer.Argument(help="Which pipeline.")],
    manifest_uri: Annotated[
        list[str],
        typer.Option(
            "--manifest-uri",
            help="s3://.../manifest.json of a batch, or a prefix with the batches of a source; may repeat. Adaptation: "
            "one run a batch.",
        ),
    ],
    runner: Engine = EngineChoice.local,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
    labels: Annotated[str, typer.Option(help="Label table for training: s3:// address or path of a CSV.")] = "",
    run_id: Annotated[str, typer.Option(help="Name of the run; the same name again resumes it.")] = "",
    manifest_digest: Annotated[str, typer.Option(help="Refuse any other version of the manifest.")] = "",
    work: Annotated[Path, typer.Option(help="Folder for the runs of this machine.")] = WORK,
    wait: Annotated[bool, typer.Option(help="Wait for the end of a run on Kubeflow.")] = True,  # noqa: FBT002
) -> None:
    """Run a pipeline; services are read from the environment (docs/settings.md).

    A refused batch and a kept incumbent are results: the exit code is 0. A step that fails gives its own exit code.
    """
    from coda.runners import run_pipeline
    from coda.settings import read_settings
    from coda.storage.manifest_addresses import manifests_at

    settings, values = read_settings(), read_params(params, overlay, changes)

    # bound now: what the steps print is captured, what the run says is not
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    uris = manifests_at(manifest_uri, settings)
    if pipeline is Pipeline.adaptation and (len(uris) > 1 or uris != manifest_uri):
        from coda.cli.pipeline_batches import run_batches

        if manifest_digest:
            problem = Problem("--manifest-digest", manifest_digest, "one manifest beside it", "Leave it out.")
            raise ConfigError("One digest cannot stand for several batches.", [problem])
        run_batches(
            uris, values, run_id=run_id, runner=runner.value, settings=settings, work=work, wait=wait, console=console
        )  # fmt: skip
        return
    name = run_id or f"{pipeline}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    arguments: dict[str, Any] = {"run_id": name, "params": values}
    if pipeline is Pipeline.training:
        arguments |= {"manifest_uris": uris, "labels": labels}
    else:
        arguments |= {"manifest_uri": uris[0], "manifest_digest": manifest_digest}
    console.print(f"Run {name}", markup=False)
    outcome = run_pipeline(
        pipeline.value,
        arguments,
        runner=runner.value,
        settings=settings,
        work=work,
        say=lambda line: console.print(f"  {line}", markup=False),
        wait=wait,
    )
    console.print(f"{outcome.outcome.replace('_', ' ').capitalize()}: {outcome.sentence}", markup=False)
    if outcome.log is not None:
        console.print(f"Log: {outcome.log}", markup=False)


@app.command("compile")
def compile_(
    out: Annotated[Path | None, typer.Option(help="Folder to write to; beside the definitions by default.")] = None,
    image: Annotated[str, typer.Option(envvar="CODA_IMAGE", help="Image of the steps, best with a digest.")] = "",
) -> None:
    """Compile the pipelines to YAML."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # here, where a folder that cannot be is explained
    # definitions lie above the library: they are run as a program, never imported by it
    command = [sys.executable, "-m", "pipelines.compile", "--image", image]
    done = subprocess.run([*command, *(["--out", str(out)] if out else [])], check=False)
    if done.returncode:
        where = str(out or "the folder of the definitions")
        problem = Problem(where, "the reason above", "compiled pipelines", "Correct it and compile again.")
        raise CodaError("The pipelines could not be compiled.", [problem])
