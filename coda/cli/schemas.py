"""`coda schemas`: the JSON schemas of the contracts."""

import json
from pathlib import Path
from typing import Annotated

import typer

from coda.contracts import PUBLISHED

app = typer.Typer(help="Write the JSON schemas of the contracts.")


@app.command()
def write(folder: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("docs/schemas")) -> None:
    """Write one schema a contract to FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for contract in PUBLISHED:
        path = folder / f"{contract.__name__}.json"
        path.write_text(json.dumps(contract.model_json_schema(), indent=2) + "\n", encoding="utf-8")
        typer.echo(f"wrote {path}")
