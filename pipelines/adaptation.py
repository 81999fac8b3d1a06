"""Adaptation: one new batch -> judged, registered, released and predicted; or refused with reasons."""

from kfp import dsl

from components.adapt import adapt
from components.archive import archive
from components.conclude import conclude
from components.gate import gate
from components.ingest import ingest
from components.ingest_plates import ingest_plates
from components.plan_memory import plan_memory
from components.plan_plates import plan_plates
from components.predict import predict
from components.quality_verdict import quality_verdict
from components.register_adaptation import register_adaptation
from components.release import release
from components.report import report
from components.validate import validate
from components.version import version
from pipelines.resources import ADAPT, PARALLEL, PLATES, SMALL, needs

DAY = 24 * 3600


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="adaptation",
    description="Adapt the released extractor to one new batch without labels; the gate decides what serves it.",
    # a failed run is looked into: its pods and logs stay longer
    pipeline_config=dsl.PipelineConfig(ttl_seconds_after_success=7 * DAY, ttl_seconds_after_failure=30 * DAY),
)
def adaptation(run_id: str, manifest_uri: str, params: str, manifest_digest: str = "") -> None:
    """Run one batch through; a refused batch ends with its report and touches no registry.

    Args:
        run_id: Name of the run; the same name again continues it.
        manifest_uri: ``s3://.../manifest.json`` of the batch.
        params: Params as JSON.
        manifest_digest: Version of the manifest that was claimed; empty for whatever is there.
    """
    end = conclude(
        run_id=run_id, params=params, pipeline="adaptation", manifest_uri=manifest_uri, manifest_digest=manifest_digest
    )
    # never remembered: it looks at what became of the others
    end = needs(end, SMALL, "report").set_caching_options(enable_caching=False)
    with dsl.ExitHandler(end, name="steps"):
        memory = needs(plan_memory(run_id=run_id, params=params, manifest_uri=manifest_uri), SMALL, "intake")
        groups = needs(plan_plates(run_id=run_id, params=params, manifest_uri=manifest_uri), SMALL, "intake")
        with dsl.ParallelFor(groups.output, name="plates", parallelism=PARALLEL) as group:
            done = needs(
                ingest_plates(run_id=run_id, params=params, group=group, manifest_uri=manifest_uri), PLATES, "intake"
            )
        read = needs(
            ingest(
                run_id=run_id,
                params=params,
                manifest_uri=manifest_uri,
                manifest_digest=manifest_digest,
                ingested=dsl.Collected(done.output),
            ),
            PLATES,
            "intake",
        )
        raw = read.outputs["dataset"]
        # the archive comes before this batch is versioned, so it can never hold the batch itself
        history = needs(archive(run_id=run_id, params=params, dataset=raw), PLATES, "intake")
        earlier = history.outputs["earlier"]
        valid = needs(validate(run_id=run_id, params=params, dataset=raw, history=earlier), PLATES, "intake")
        dataset = valid.outputs["checked"]
        verdict = needs(quality_verdict(run_id=run_id, dataset=dataset), SMALL, "intake")

        with dsl.If(verdict.output == "accepted", name="accepted"):
            data = needs(version(run_id=run_id, params=params, dataset=dataset), SMALL, "version")
            revisions = data.outputs["revisions"]
            adapted = needs(
                adapt(run_id=run_id, params=params, dataset=dataset, earlier=earlier).after(data),
                ADAPT,
                "train",
                memory.output,
            )
            candidates = adapted.outputs["candidates"]
            features = adapted.outputs["features"]
            judged = needs(
                gate(run_id=run_id, params=params, dataset=dataset, candidates=candidates, features=features),
                PLATES,
                "gate",
            )
            decision = judged.outputs["decision"]
            registered = needs(
                register_adaptation(
                    run_id=run_id,
                    params=params,
                    candidates=candidates,
                    models=adapted.outputs["models"],
                    decision=decision,
                    revisions=revisions,
                ),
                SMALL,
                "register",
            )
            released = needs(release(run_id=run_id, draft=registered.outputs["draft"]), SMALL, "release")
            record = released.outputs["record"]
            predicted = needs(
                predict(
                    run_id=run_id,
                    params=params,
                    dataset=dataset,
                    record=record,
                    decision=decision,
                    candidates=candidates,
                ),
                ADAPT,
                "predict",
            )
            needs(
                report(
                    run_id=run_id,
                    params=params,
                    pipeline="adaptation",
                    dataset=dataset,
                    candidates=candidates,
                    features=features,
                    decision=decision,
                    revisions=revisions,
                    record=record,
                    predictions=predicted.outputs["predictions"],
                ),
                SMALL,
                "report",
            )
        with dsl.Else(name="refused"):
            needs(report(run_id=run_id, params=params, pipeline="adaptation", dataset=dataset), SMALL, "report")
