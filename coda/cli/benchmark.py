"""`coda benchmark`: the paper's tables on simulated plates or on your own, and in a checkout what else is measured."""

from functools import partial
from typing import Annotated

import typer

from coda.cli.benchmark_options import (
    DEFAULT_SEEDS,
    DEFAULT_WORK,
    NONE,
    Datasets,
    Json,
    Labels,
    Out,
    Processes,
    Seeds,
    Source,
    Target,
    Work,
    finish,
    read_setting,
)  # fmt: skip
from coda.cli.checkout import CheckoutGroup, add_checkout_commands
from coda.cli.options import DEFAULT_PARAMS, Overlays, ParamsFile, Settings_

app = typer.Typer(
    cls=CheckoutGroup,
    no_args_is_help=True,
    help="The paper's tables on simulated plates or on your own; in a checkout also figures, speed and calibration.",
)


@app.command()
def table2(
    seeds: Seeds = DEFAULT_SEEDS,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    source: Source = NONE,
    target: Target = NONE,
    dataset: Datasets = NONE,
    labels: Labels = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
    unseen: Annotated[
        float, typer.Option(help="Share of each mechanism's compounds that no head learns from.", min=0, max=0.9)
    ] = 0.0,
) -> None:
    """All eight systems and the classical profile, from one source to the others (the paper's table 2)."""
    from coda.benchmark import table2 as module

    setting = read_setting(seeds, work, processes, source, target, dataset, labels, params, overlay, changes)
    finish(setting, partial(module.table2, unseen=unseen), module.as_json, "table2", out, json, processes)


@app.command()
def table3(
    seeds: Seeds = DEFAULT_SEEDS,
    out: Out = None,
    json: Json = None,
    processes: Processes = 0,
    work: Work = DEFAULT_WORK,
    source: Source = NONE,
    target: Target = NONE,
    dataset: Datasets = NONE,
    labels: Labels = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = NONE,
    changes: Settings_ = NONE,
) -> None:
    """DINO against a masked autoencoder, with and without adaptation (the paper's table 3)."""
    from coda.benchmark import table2 as tables
    from coda.benchmark import table3 as module

    setting = read_setting(seeds, work, processes, source, target, dataset, labels, params, overlay, changes)
    finish(setting, module.table3, tables.as_json, "table3", out, json, processes)


add_checkout_commands(app)
