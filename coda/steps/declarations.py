"""The steps of the pipelines: what runners and trigger must know of each, without importing it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: Of its component, its record and its errors.
        says: What it does, for people who watch a run.
        imports: Modules that it is the first to need, also inside its functions, for a warm worker; large libraries in
            parts, since a step that is asked for waits for the import under way.
        reads: Whether it only reads a delivery: what it cannot use is the delivery's fault, and the batch is refused.
        processes: ``module:function`` of a step that several processes can do together, each on its GPU.
    """

    name: str
    says: str
    imports: tuple[str, ...] = ()
    reads: bool = False
    processes: str = ""


STEPS = {
    step.name: step
    for step in (
        Step("plan_memory", "Reckoning the memory", reads=True),
        Step("plan_plates", "Planning the plates", reads=True),
        Step("ingest_plates", "Reading the plates",
             ("numpy", "coda.steps.ingest", "tifffile", "imagecodecs", "zarr", "pyarrow.parquet"), reads=True),
        Step("ingest", "Putting the batch together", reads=True),
        Step("archive", "Fetching earlier batches of the source", ("coda.steps.archive", "pandas"), reads=True),
        Step("validate", "Judging the quality",
             ("coda.steps.validate", "scipy.stats", "sqlalchemy", "altair", "great_expectations.util",
              "great_expectations.datasource.fluent", "great_expectations"), reads=True),
        Step("quality_verdict", "Reading the verdict", reads=True),
        Step("version", "Versioning the data", ("coda.steps.version",)),
        Step("adapt", "Adapting the extractor",
             ("torch", "coda.networks.torchvision_shim:ensure_torchvision", "timm", "coda.steps.adapt"),
             processes="coda.steps.adapt:adapt_in_processes"),
        Step("pretrain", "Pretraining the extractor", ("coda.steps.pretrain",),
             processes="coda.steps.pretrain:pretrain"),
        Step("train_head", "Training the heads", ("coda.steps.train_head",),
             processes="coda.steps.train_head:train_head"),
        Step("evaluate", "Evaluating on held-out batches", ("coda.steps.evaluate",)),
        Step("gate", "Judging the candidates without labels",
             ("sklearn.neighbors", "coda.steps.judge", "mlflow", "mlflow.store.tracking.sqlalchemy_store",
              "mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.artifact.local_artifact_repo")),
        Step("register_adaptation", "Registering the chosen model", ("coda.steps.register_adaptation",)),
        Step("register_training", "Registering extractor and heads", ("coda.steps.register_training",)),
        Step("release", "Releasing", ("coda.steps.release",)),
        Step("predict", "Predicting the batch", ("coda.steps.predict",)),
        Step("report", "Writing the report", ("coda.steps.report", "coda.steps.finish", "matplotlib.pyplot")),
        Step("conclude", "Closing the run"),
    )
}  # fmt: skip
"""Name -> step, in the order in which runs need their modules."""
