"""Options that several sub-commands share."""

from pathlib import Path
from typing import Annotated

import typer

from coda.config import Params, load_params

ParamsFile = Annotated[Path, typer.Option("--params", help="Complete parameter file.")]
Overlays = Annotated[list[Path], typer.Option("--overlay", help="File with only the keys it changes; may repeat.")]
Settings_ = Annotated[list[str], typer.Option("--set", help="One change as dotted.path=value; may repeat.")]

DEFAULT_PARAMS = Path("params.yaml")


def read_params(params: Path, overlays: list[Path] | None, changes: list[str] | None) -> Params:
    """Return the parameters a command line asks for."""
    return load_params(params, overlays or (), changes or ())
