"""`coda benchmark`: the paper's tables on simulated plates or on your own, and in a checkout what else is measured."""

from functools import partial
from typing import Annotated

import typer

from coda.cli.benchmark_options import PlateOptions, on_plates
from coda.cli.checkout import CheckoutGroup, add_checkout_commands

app = typer.Typer(
    cls=CheckoutGroup,
    no_args_is_help=True,
    help="The paper's tables on simulated plates or on your own; in a checkout also figures, speed and calibration.",
)


@app.command()
@on_plates
def table2(
    plates: PlateOptions,
    unseen: Annotated[
        float, typer.Option(help="Share of each mechanism's compounds that no head learns from.", min=0, max=0.9)
    ] = 0.0,
) -> None:
    """All eight systems and the classical profile, from one source to the others (the paper's table 2)."""
    from coda.benchmark import table2 as module

    plates.finish(partial(module.table2, unseen=unseen), module.as_json, "table2")


@app.command()
@on_plates
def table3(plates: PlateOptions) -> None:
    """DINO against a masked autoencoder, with and without adaptation (the paper's table 3)."""
    from coda.benchmark import table2 as tables
    from coda.benchmark import table3 as module

    plates.finish(module.table3, tables.as_json, "table3")


add_checkout_commands(app)
