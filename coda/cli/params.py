"""`coda params`: check and print the parameters."""

import typer
import yaml

from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_, read_params
from coda.config import params_digest

app = typer.Typer(no_args_is_help=True, help="Check and print the parameters.")


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
    """Report every problem of the parameters at once; exit code 2 when there are any."""
    typer.echo(f"The parameters are in order (digest {params_digest(read_params(params, overlay, changes))}).")
