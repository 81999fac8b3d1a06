"""`coda params`: write, check and print the parameters."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_, read_params
from coda.config import changed, params_digest
from coda.config.load import shipped_params
from coda.durable import write_durably
from coda.errors import ConfigError, Problem, raise_if_any

app = typer.Typer(no_args_is_help=True, help="Write, check and print the parameters.")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write params.yaml and params/.")] = Path(),
) -> None:
    """Write the parameters that come with this program, for work outside of its source; nothing is overwritten."""
    shipped = {folder / name: path.read_bytes() for name, path in shipped_params().items()}
    problems = [
        Problem(
            str(path), "another file of this name", "none, or the same", "Give a new folder: coda params init FOLDER"
        )
        for path, content in shipped.items()
        if path.exists() and (not path.is_file() or path.read_bytes() != content)
    ]
    raise_if_any(ConfigError, "The parameters are not written over others.", problems)
    for path, content in shipped.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
    typer.echo(f"Wrote {folder / 'params.yaml'} and {len(shipped) - 1} overlays in {folder / 'params'}.")


@app.command()
def show(
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006 - typer reads the default, nobody changes it
    changes: Settings_ = [],  # noqa: B006
) -> None:
    """Print the merged parameters as YAML."""
    merged = read_params(params, overlay, changes)
    typer.echo(f"# digest {params_digest(merged)}")
    typer.echo(yaml.safe_dump(merged.model_dump(mode="json"), sort_keys=False), nl=False)


@app.command()
def check(
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
) -> None:
    """Report every problem of the parameters, and build their network without weights; exit code 2 if there are any."""
    from coda.networks.extractor import new_extractor

    found = read_params(params, overlay, changes)
    new_extractor(changed(found, {"extractor.weights": "random"}), seed=0)
    typer.echo(f"The parameters are in order (digest {params_digest(found)}).")
