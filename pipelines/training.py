"""Training: batches of one source and a label table -> the default release."""

from kfp import dsl

from components.conclude import conclude
from components.evaluate import evaluate
from components.ingest import ingest
from components.ingest_plates import ingest_plates
from components.plan_memory import plan_memory
from components.plan_plates import plan_plates
from components.pretrain import pretrain
from components.register_training import register_training
from components.release import release
from components.report import report
from components.train_head import train_head
from components.validate import validate
from components.version import version
from pipelines.resources import PARALLEL, PLATES, SMALL, TRAIN, needs

DAY = 24 * 3600


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="training",
    description="Pretrain the extractor, train the heads, register both, release.",
    # a failed run is looked into: its pods and logs stay longer
    pipeline_config=dsl.PipelineConfig(ttl_seconds_after_success=7 * DAY, ttl_seconds_after_failure=30 * DAY),
)
def training(run_id: str, manifest_uris: list[str], labels: str, params: str) -> None:
    """Train on every batch; a refused one stops the run.

    Args:
        run_id: Name of the run; the same name again continues it.
        manifest_uris: One ``s3://.../manifest.json`` for each batch.
        labels: Address of the label table (CSV with Metadata_Compound and moa).
        params: Params as JSON.
    """
    end = conclude(run_id=run_id, params=params, pipeline="training", manifest_uris=manifest_uris)
    # never remembered: it looks at what became of the others
    end = needs(end, SMALL, "report").set_caching_options(enable_caching=False)
    with dsl.ExitHandler(end, name="steps"):
        memory = needs(plan_memory(run_id=run_id, params=params, manifest_uris=manifest_uris), SMALL, "intake")
        groups = needs(plan_plates(run_id=run_id, params=params, manifest_uris=manifest_uris), SMALL, "intake")
        with dsl.ParallelFor(groups.output, name="plates", parallelism=PARALLEL) as group:
            done = needs(
                ingest_plates(run_id=run_id, params=params, group=group, manifest_uris=manifest_uris), PLATES, "intake"
            )
        read = needs(
            ingest(run_id=run_id, params=params, manifest_uris=manifest_uris, ingested=dsl.Collected(done.output)),
            PLATES,
            "intake",
        )
        valid = needs(
            validate(run_id=run_id, params=params, dataset=read.outputs["dataset"], must_be_accepted=True),
            PLATES,
            "intake",
        )
        dataset = valid.outputs["checked"]
        data = needs(version(run_id=run_id, params=params, dataset=dataset), SMALL, "version")
        trained = needs(
            pretrain(run_id=run_id, params=params, labels=labels, dataset=dataset).after(data),
            TRAIN,
            "train",
            memory.output,
        )
        network = trained.outputs["pretrained"]
        classifier = needs(
            train_head(run_id=run_id, params=params, labels=labels, dataset=dataset, pretrained=network), TRAIN, "train"
        )
        heads = classifier.outputs["heads"]
        measured = needs(
            evaluate(run_id=run_id, params=params, labels=labels, dataset=dataset, pretrained=network, heads=heads),
            TRAIN,
            "train",
        )
        registered = needs(
            register_training(
                run_id=run_id,
                params=params,
                pretrained=network,
                heads=heads,
                evaluation=measured.outputs["evaluation"],
                revisions=data.outputs["revisions"],
            ),
            SMALL,
            "register",
        )
        released = needs(release(run_id=run_id, draft=registered.outputs["draft"]), SMALL, "release")
        needs(
            report(
                run_id=run_id,
                params=params,
                pipeline="training",
                dataset=dataset,
                revisions=data.outputs["revisions"],
                record=released.outputs["record"],
                evaluation=measured.outputs["evaluation"],
            ),
            SMALL,
            "report",
        )
