"""What a pipeline run logs to MLflow: curves, parameters, data sets, results, the report.

One MLflow run stands for one pipeline run. Repeating any of it is safe: numbers have the time of the run's start, so a
second telling of the same number is the same number. The release log decides what serves, never a tag in MLflow.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coda.contracts import DataRevision, ModelRef
from coda.registry.mlflow_client import connect, experiment_id, explained
from coda.registry.registering import RUN_TAG, run_of
from coda.registry.versions import describe, quoted
from coda.settings import Settings, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

MOST_METRICS, MOST_PARAMS = 1000, 100
"""Numbers and parameters that MLflow takes in one request."""

_VALUE = 6000
"""Characters of a parameter's value that MLflow takes."""

_DIGEST = 36
"""Characters of a data set's digest that MLflow takes: as many as DVC's '<md5>.dir' has."""

_NOTE = "mlflow.note.content"
"""Tag that MLflow shows as the description of a run."""

Log = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Tracked:
    """What there is to tell of one run.

    Attributes:
        run_id: The pipeline run.
        pipeline: 'training' or 'adaptation'.
        source: Laboratory it was for.
        tags: Further words that people filter by: outcome, method.
        note: What became of it, in a sentence.
        params: Its parameters, nested, as JSON values.
        data: Batches it read, as the data registry holds them.
        curves: Name -> entries, each with ``iteration`` and numbers of that iteration.
        results: Name -> number.
        of_models: Registered versions with numbers that are kept with each and with the run.
    """

    run_id: str
    pipeline: str
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[DataRevision] = ()
    curves: Mapping[str, Log] = field(default_factory=dict)
    results: Mapping[str, float] = field(default_factory=dict)
    of_models: Sequence[tuple[ModelRef, Mapping[str, float]]] = ()


def track(told: Tracked, *, settings: Settings) -> str:
    """Tell MLflow of a run, and return the name of MLflow's run that stands for it.

    Raises:
        TransientError: MLflow does not answer; repeating the call is safe.
    """
    from mlflow.entities import LoggedModelOutput, Param, RunTag

    client = connect(settings)
    with explained(f"record the run {told.run_id}", settings):
        experiment = experiment_id(client, settings)
        name = run_of(client, experiment, told.run_id)
        run = client.get_run(name)
        at = int(run.info.start_time)
        # MLflow takes a model of a run once, and refuses it the second time
        made = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
        params = [Param(key, value[:_VALUE]) for key, value in flat(told.params)]
        for first in range(0, len(params), MOST_PARAMS):
            client.log_batch(name, params=params[first : first + MOST_PARAMS])
        metrics = [*_curves(told.curves, at), *_numbers(told.results, at)]
        for ref, numbers in told.of_models:
            model = _logged_model(client, experiment, ref, settings)
            metrics += _numbers(numbers, at, model, told.data[0] if len(told.data) == 1 else None)
            if model is not None and model not in made:
                client.log_outputs(name, [LoggedModelOutput(model, step=0)])
        for first in range(0, len(metrics), MOST_METRICS):
            client.log_batch(name, metrics=metrics[first : first + MOST_METRICS])
        # the same data set again is the same one: MLflow knows it by name and digest
        if told.data:
            client.log_inputs(name, datasets=[_dataset(item, told.pipeline, settings) for item in told.data])
        tags = {"pipeline": told.pipeline, "source": told.source, **told.tags, _NOTE: told.note}
        client.log_batch(name, tags=[RunTag(key, value) for key, value in tags.items() if value])
    return name


def attach_report(run_id: str, page: Path, seconds: Mapping[str, float], *, settings: Settings) -> bool:
    """Put the report of a run beside its numbers, with the seconds of its steps; return whether MLflow has the run.

    Raises:
        TransientError: MLflow does not answer; repeating the call is safe.
    """
    client = connect(settings)
    with explained(f"attach the report of {run_id}", settings):
        run = _run(client, experiment_id(client, settings), run_id)
        if run is None:
            return False
        metrics = list(_numbers({f"seconds/{name}": value for name, value in seconds.items()}, run.info.start_time))
        client.log_batch(run.info.run_id, metrics=metrics)
        client.log_text(run.info.run_id, page.read_text(encoding="utf-8"), "report.html")
    return True


def _run(client: "MlflowClient", experiment: str, run_id: str) -> "Run | None":
    found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{quoted(run_id)}'", max_results=1)
    return found[0] if found else None


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values under dotted names, as text; lists stay together."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, str) else json.dumps(value)


def _curves(curves: Mapping[str, Log], at: int) -> Iterator["Metric"]:
    from mlflow.entities import Metric

    for curve, entries in curves.items():
        for entry in entries:
            step = int(entry["iteration"])
            for name, value in entry.items():
                if name != "iteration" and math.isfinite(value):
                    yield Metric(f"{curve}/{_plain(name)}", float(value), at, step)


def _numbers(
    numbers: Mapping[str, float], at: int, model: str | None = None, data: DataRevision | None = None
) -> Iterator["Metric"]:
    from mlflow.entities import Metric

    measured_on = (f"{data.source}/{data.batch}", data.digest[:_DIGEST]) if data is not None else (None, None)
    for name, value in numbers.items():
        if math.isfinite(value):
            yield Metric(_plain(name), float(value), at, 0, model, *measured_on)


def _plain(name: str) -> str:
    """Return a name of the letters that MLflow takes in metrics: a way of predicting may be called 'coda+aligned'."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)


def _logged_model(client: "MlflowClient", experiment: str, ref: ModelRef, settings: Settings) -> str | None:
    """Return MLflow's name of the stored model of a version: numbers of a version are kept with it."""
    place = describe(ref, settings=settings).location
    filter_ = f"name = '{ref.name}' AND tags.digest = '{ref.digest}'"
    for model in client.search_logged_models([experiment], filter_string=filter_):
        if model.artifact_location == place:
            return str(model.model_id)
    return None


def _dataset(item: DataRevision, use: str, settings: Settings) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    registry = without_secrets(settings.data_registry)
    source = {"repository": registry, "path": item.path, "revision": item.revision, "digest": item.digest}
    profile = {"source": item.source, "batch": item.batch}
    told = Dataset(
        f"{item.source}/{item.batch}", item.digest[:_DIGEST], "dvc", json.dumps(source), profile=json.dumps(profile)
    )
    return DatasetInput(told, [InputTag("mlflow.data.context", use)])
