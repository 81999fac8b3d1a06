"""Options that several sub-commands share."""

from pathlib import Path
from typing import Annotated

import typer

from coda.config import Params, load_params
from coda.errors import ConfigError, Problem

ParamsFile = Annotated[Path, typer.Option("--params", help="Complete parameter file.")]
Overlays = Annotated[list[Path], typer.Option("--overlay", help="File with only the keys it changes; may repeat.")]
Settings_ = Annotated[list[str], typer.Option("--set", help="One change as dotted.path=value; may repeat.")]

DEFAULT_PARAMS = Path("params.yaml")


def read_params(params: Path, overlays: list[Path] | None, changes: list[str] | None) -> Params:
    """Return the parameters a command line asks for."""
    return load_params(params, overlays or (), changes or ())


def channel_mapping(values: list[str]) -> dict[str, str]:
    """Return channel -> stain of options `--channel NAME=STAIN`.

    Raises:
        ConfigError: An option is none of this form.
    """
    pairs = [value.rpartition("=") for value in values]
    wrong = [value for value, pair in zip(values, pairs, strict=True) if not pair[0] or not pair[2]]
    if wrong:
        problem = Problem("--channel", ", ".join(wrong), "NAME=STAIN", "For example --channel 'Alexa 568=AGP'.")
        raise ConfigError("A channel cannot be understood.", [problem])
    return {name: stain for name, _, stain in pairs}
