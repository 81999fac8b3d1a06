"""`coda benchmark`: the paper's tables on simulated plates or on your own, and in a checkout what else is measured."""

from functools import partial
from typing import Annotated

import typer

from coda.cli.benchmark_options import PlateOptions, on_plates
from coda.cli.checkout import CheckoutGroup, add_checkout_commands

UNSEEN = 0.25
"""Share of each mechanism's compounds that are kept from every head, so that accuracy on them is known, too."""

SHIFTS = ("photometric:1", "optical:0.5", "optical:1", "geometric:0.5", "geometric:1")
"""Other microscopes that held-out plates are seen through; three kinds, and two strengths where structure changes."""

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
        float | None,
        typer.Option(
            help="Share of each mechanism's compounds that no head learns from. If not given: 0.25 of simulated "
            "plates, and none of yours, as in the paper.",
            min=0,
            max=0.9,
        ),
    ] = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(
            help="Simulated: a target at KIND:STRENGTH of the way from the source, or several with +; may repeat. "
            "Kinds: photometric, optical, geometric, biological, all; missing, dominant, doses, moved (layouts)."
        ),
    ] = None,
    system: Annotated[list[str] | None, typer.Option(help="Only this system; may repeat.")] = None,
) -> None:
    """All eight systems and the classical profile, from one source to the others (the paper's table 2)."""
    from coda.benchmark import table2 as module

    kept_back = (0.0 if plates.dataset else UNSEEN) if unseen is None else unseen
    run = partial(module.table2, unseen=kept_back, systems=system or module.ALL)
    plates.finish(run, module.as_json, "table2", plates.setting(shift or ()))


@app.command()
@on_plates
def table3(plates: PlateOptions) -> None:
    """DINO against a masked autoencoder, with and without adaptation (the paper's table 3)."""
    from coda.benchmark import table2 as tables
    from coda.benchmark import table3 as module

    plates.finish(module.table3, tables.as_json, "table3")


@app.command()
@on_plates
def real(
    plates: PlateOptions,
    hold_out: Annotated[
        list[str],
        typer.Option("--hold-out", help="Batch or plate to hold out; may repeat. The last batch if not given."),
    ] = [],  # noqa: B006
    shift: Annotated[
        list[str],
        typer.Option("--shift", help="Other microscope as KIND:STRENGTH, e.g. optical:1; may repeat, 'none' for none."),
    ] = list(SHIFTS),  # noqa: B006
    pseudo_compounds: Annotated[
        int, typer.Option(min=0, help="Compounds that each mechanism has at least, by dividing wells; 0 divides none.")
    ] = 4,
    unseen: Annotated[
        float, typer.Option(help="Share of each mechanism's compounds that no head learns from.", min=0, max=0.9)
    ] = UNSEEN,
) -> None:
    """All systems on your own labelled plates: held-out batches, and other microscopes simulated on their pixels."""
    from coda.benchmark import real as module

    plates.finish(
        partial(module.real, unseen=unseen), module.as_json, "real",
        plates.real_setting(hold_out, shift, pseudo_compounds),
    )  # fmt: skip


add_checkout_commands(app)
