"""`coda monitoring`: the table of batches, dashboards, alert rules, the metrics endpoint and the batch report."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from coda.cli.monitoring_history import history
from coda.cli.monitoring_notify import notify
from coda.cli.monitoring_site import site
from coda.cli.options import DEFAULT_PARAMS, NamedParams, Overlays, Settings_, read_params
from coda.errors import ConfigError, Problem

app = typer.Typer(
    help="The table of batches; dashboards and alert rules as code; the metrics endpoint; batch reports.",
    no_args_is_help=True,
)
app.command()(history)
app.command()(site)
app.command()(notify)

Check = Annotated[bool, typer.Option("--check", help="Write nothing; fail when a file is not what it should be.")]


@app.command()
def dashboards(
    folder: Annotated[Path, typer.Option("--folder", help="Folder of the JSON files.")] = Path(
        "docker/grafana/dashboards"
    ),
    kubernetes: Annotated[
        Path, typer.Option("--kubernetes", help="Their folder in the component for clusters.")
    ] = Path("k8s/components/grafana"),
    *,
    check: Check = False,
) -> None:
    """Write the Grafana dashboards, for the compose stack and for clusters."""
    from coda.monitoring.dashboards import dashboards as build

    _generate({place / name: text for name, text in build().items() for place in (folder, kubernetes)}, check=check)


@app.command()
def alerts(
    path: Annotated[Path, typer.Option("--path", help="Rule file for Prometheus.")] = Path(
        "docker/prometheus/alerts.yml"
    ),
    routes: Annotated[Path, typer.Option("--routes", help="Configuration of Alertmanager.")] = Path(
        "docker/alertmanager/alertmanager.yml"
    ),
    kubernetes: Annotated[
        Path, typer.Option("--kubernetes", help="Folder of the same as resources of Prometheus' operator.")
    ] = Path("k8s/components/prometheus-operator"),
    *,
    check: Check = False,
) -> None:
    """Write the alert rules and their receivers, for the compose stack and for clusters."""
    from coda.monitoring.alerts import rule_resource_yaml, rules_yaml
    from coda.monitoring.routes import route_resource_yaml, routes_yaml

    files = {path: rules_yaml(), routes: routes_yaml()}
    files |= {kubernetes / "rules.yaml": rule_resource_yaml(), kubernetes / "routes.yaml": route_resource_yaml()}
    _generate(files, check=check)


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="Folder with the metrics files of the batch steps.")],
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = 9108,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Expose the metrics files for Prometheus until Ctrl-C."""
    from coda.monitoring.endpoint import serve as start
    from coda.monitoring.listening import address

    server, thread, bound = start(folder, port, host=host)
    typer.echo(f"metrics at http://{address(host, bound)}/metrics (Ctrl-C stops)")
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()
        server.server_close()


@app.command()
def report(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder, as ingest and validation left it.")],
    out: Annotated[Path, typer.Argument(help="HTML file to write.")],
    candidates: Annotated[Path | None, typer.Option(help="Candidates folder of the adaptation.")] = None,
    gate: Annotated[Path | None, typer.Option(help="gate.json")] = None,
    release: Annotated[Path | None, typer.Option(help="Release record.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Folder of the predictions.")] = None,
    evaluation: Annotated[Path | None, typer.Option(help="metrics.json of a training run.")] = None,
    params: NamedParams = None,
    overlay: Overlays | None = None,
    change: Settings_ | None = None,
    run_id: Annotated[str, typer.Option(help="Run to name in the report.")] = "by-hand",
    *,
    show: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
) -> None:
    """Write the report of a dataset folder again, on this machine only: nothing is uploaded or pushed."""
    from coda.monitoring.report import write_report

    inputs = {"candidates": candidates, "gate": gate, "release": release, "predictions": predictions}
    page = write_report(
        dataset,
        out,
        params=read_params(params or DEFAULT_PARAMS, overlay, change) if params or overlay or change else None,
        run_id=run_id,
        evaluation=evaluation,
        **inputs,
    )
    typer.echo(f"wrote {page.path} ({page.path.stat().st_size / 1e6:.1f} MB): {page.sentence}")
    if show:
        webbrowser.open(page.path.resolve().as_uri())


def _generate(files: dict[Path, str], *, check: bool) -> None:
    if not check:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            typer.echo(f"wrote {path}")
        return
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    problems = [
        Problem(str(path), "another text than the code makes", "the generated text", "Run the command without --check.")
        for path in stale
    ]
    if problems:
        raise ConfigError("Generated files are out of date.", problems)
    typer.echo(f"{len(files)} file(s) are up to date")
