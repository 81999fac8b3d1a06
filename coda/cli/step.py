"""`coda step`: one step of a pipeline on local paths, as the DVC stages run it."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from coda.cli.options import DEFAULT_PARAMS, NamedParams, Overlays, ParamsFile, Settings_, read_params
from coda.contracts.ingest import IngestReport
from coda.errors import ContractError, Problem
from coda.local.offline import offline_settings, storage_settings
from coda.storage.manifest_addresses import manifests_at

app = typer.Typer(no_args_is_help=True, help="Run one step of a pipeline on local paths.")


@app.callback()
def calm_threads() -> None:
    """Run one step of a pipeline on local paths."""
    # as the local runner does: threads that spin while they wait take the cores from each other
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Data = Annotated[Path, typer.Option("--dataset", help="Dataset folder (from ingest).")]
Labels = Annotated[str, typer.Option("--labels", help="CSV with Metadata_Compound and moa.")]
Work = Annotated[Path, typer.Option("--work", help="Folder for checkpoints.")]
RunId = Annotated[str, typer.Option("--run-id", help="Name under which checkpoints are kept.")]
WORK = Path("runs/steps")


@app.command()
def ingest(
    manifest: Annotated[
        list[str],
        typer.Option(
            "--manifest",
            help="Path or s3:// address of a manifest.json, or of a folder with those of several batches; may repeat.",
        ),
    ],
    out: Out,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
    work: Work = WORK,
) -> None:
    """Raw TIFFs to plate stores and a field index."""
    from coda.steps.ingest import ingest as step

    # a manifest, or the images it names, may lie in object storage
    settings = storage_settings(work)
    uris = manifests_at(manifest, settings)
    reports = step(uris, out, params=read_params(params, overlay, changes), settings=settings)
    for report in reports:
        typer.echo(_account(report))
    if not any(report.fields_accepted for report in reports):
        raise ContractError(
            "No field of any delivery could be used, so there is nothing for the next step.",
            [problem for report in reports for problem in _refusals(report)],
        )


def _refusals(report: IngestReport) -> list[Problem]:
    """Return why each plate was refused, or what is wrong with the whole delivery, first causes first."""
    batch = f"{report.source}/{report.batch}"
    whole = [
        Problem(f"{batch}, {item.where}", item.found, item.expected, item.remedy) for item in report.batch_problems
    ]
    return whole or [
        Problem(
            f"{batch}, plate {plate.plate}",
            plate.reason or "no field that can be read",
            "a plate with enough readable fields",
            "Correct what is said, and run the step again on the corrected delivery.",
        )
        for plate in report.plates
        if plate.outcome == "refused"
    ]


def _account(report: IngestReport) -> str:
    refused = sum(plate.outcome == "refused" for plate in report.plates)
    parts = [f"{report.fields_accepted} of {report.fields_expected} fields in the plate stores"]
    parts += [f"{refused} of {len(report.plates)} plates refused"] if refused else []
    parts += [f"{len(report.quarantined)} field(s) or file(s) set aside"] if report.quarantined else []
    text = f"{report.source}/{report.batch}: {', '.join([*parts, f'{len(report.problems)} problem(s)'])}"
    return "\n".join([text, *(f"  {note}" for note in report.notes)])


@app.command()
def validate(
    dataset: Data,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--earlier",
            help="Dataset folder with earlier batches to compare with; also stain_fingerprints.json of a training run.",
        ),
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
    work: Work = WORK,
) -> None:
    """Judge the quality of each batch; exit code 3 when one is refused."""
    from coda.steps.validate import validate as step

    read = read_params(params, overlay, changes)
    reports = step(dataset, params=read, settings=offline_settings(work), history=earlier)
    for report in reports:
        typer.echo(report.sentence)
    refused = [report for report in reports if report.refused]
    if refused:
        raise ContractError(f"{len(refused)} of {len(reports)} batches were refused; see `coda quality show`.")


@app.command()
def pretrain(
    dataset: Data,
    out: Out,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Label table; read with pretrain.fields=labelled only.")
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
    work: Work = WORK,
) -> None:
    """Train the extractor with DINO and cross-batch pairs."""
    from coda.steps.pretrain import pretrain as step

    merged = read_params(params, overlay, changes)
    _print(step(dataset, out, params=merged, settings=offline_settings(work), run_id="step", labels=labels))


@app.command("train-head")
def train_head(
    dataset: Data,
    pretrained: Annotated[Path, typer.Option("--pretrained", help="Output of pretrain.")],
    labels: Labels,
    out: Out,
    params: NamedParams = None,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
    work: Work = WORK,
) -> None:
    """Train the heads on the frozen extractor's tokens."""
    from coda.config.recorded import Today
    from coda.steps.train_head import train_head as step

    today = Today.read(params, overlay, changes)
    _print(step(dataset, pretrained, labels, out, params=today, settings=offline_settings(work), run_id="step"))


@app.command()
def evaluate(
    dataset: Data,
    pretrained: Annotated[Path, typer.Option("--pretrained", help="Output of pretrain.")],
    heads: Annotated[Path, typer.Option("--heads", help="Output of train-head.")],
    labels: Labels,
    out: Out,
    params: NamedParams = None,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
    work: Work = WORK,
) -> None:
    """Measure the heads on the batches that were held out."""
    from coda.config.recorded import Today
    from coda.steps.evaluate import evaluate as step

    today = Today.read(params, overlay, changes)
    _print(step(dataset, pretrained, heads, labels, out, params=today, settings=offline_settings(work)))


@app.command()
def adapt(
    dataset: Data,
    out: Out,
    earlier: Annotated[
        Path | None, typer.Option("--earlier", help="Dataset folder with earlier accepted batches of the source.")
    ] = None,
    run_id: RunId = "step",
    params: ParamsFile = DEFAULT_PARAMS,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
) -> None:
    """Adapt the released extractor to a validated batch without labels; services as for `coda pipeline run`.

    The candidates folder holds every way of serving the batch, for the gate to judge. Called again under the same
    --run-id, a call that was broken off resumes from its newest checkpoint.
    """
    from coda.settings import read_settings
    from coda.steps.adapt import adapt as step

    merged, settings = read_params(params, overlay, changes), read_settings()
    # a folder without batches is an archive without batches
    for candidate in step(dataset, earlier or out, out, params=merged, settings=settings, run_id=run_id):
        alarms = f" (alarms: {', '.join(candidate.alarms)})" if candidate.alarms else ""
        typer.echo(f"{candidate.name}: {candidate.extractor} extractor, alignment {candidate.alignment}{alarms}")
    typer.echo(f"Wrote {out}")


@app.command()
def predict(
    dataset: Data,
    release: Annotated[
        str, typer.Option("--release", help="ReleaseRecord file, or the id of a release that serves or served.")
    ],
    out: Out,
    decision: Annotated[
        Path | None,
        typer.Option("--decision", help="gate.json of the batch: where nothing is fit, nothing is answered."),
    ] = None,
    params: NamedParams = None,
    overlay: Overlays = [],  # noqa: B006
    changes: Settings_ = [],  # noqa: B006
) -> None:
    """Predict a batch with the registered models of one release, verified at load; services as for `coda predict`.

    Nothing is published: that is what the pipeline does, and `coda predict --publish`.
    """
    import tempfile

    from coda.config.recorded import Today
    from coda.settings import read_settings
    from coda.steps.predict import predict as step
    from coda.steps.prediction_inputs import release_for

    today, settings = Today.read(params, overlay, changes), read_settings()
    record = release_for(dataset, release, settings)
    with tempfile.TemporaryDirectory(prefix="coda-step-") as work:
        summary = step(
            dataset, record.write(Path(work) / "release.json"), out, params=today, settings=settings, gate=decision,
            publish=False,
        )  # fmt: skip
    for note in summary["notes"]:
        typer.echo(f"Note: {note}")
    for level, counts in summary["levels"].items():
        typer.echo(f"{level}: {counts['rows']} rows, {counts['abstained']} with a reason to abstain")
    typer.echo(f"Wrote {out} (release {summary['release_id']})")


def _print(numbers: dict[str, float]) -> None:
    typer.echo(json.dumps(numbers, indent=2))
