"""A run that failed -> its record, its page and its numbers; what runs last, whatever became of the steps."""

from typing import Optional

from kfp import dsl

from components.image import component


@component
def conclude(
    *,
    run_id: str,
    params: str,
    pipeline: str,
    status: dsl.PipelineTaskFinalStatus,
    manifest_uris: Optional[list[str]] = None,  # noqa: UP045  KFP reads this spelling
    manifest_uri: str = "",
    manifest_digest: str = "",
) -> None:
    """Write down what is left of a failed run; nothing here changes how a run ended."""
    from coda.config import Params
    from coda.settings import read_settings
    from coda.steps.conclude import Ended, closing
    from coda.steps.conclude import conclude as step

    with closing(run_id):
        ended = Ended(
            run_id=run_id,
            pipeline="training" if pipeline == "training" else "adaptation",
            manifest_uris=list(manifest_uris or [manifest_uri]),
            manifest_digest=manifest_digest,
            state=status.state,
            said=status.error_message or "",
        )
        step(ended, params=Params.model_validate_json(params), settings=read_settings())
