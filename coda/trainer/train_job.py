"""A TrainJob of Kubeflow Trainer 2, as far as this project uses it: a strict model of fields alike in 2.0 to 2.3.

Written from Trainer's documentation of the resource (`trainer.kubeflow.org/v1alpha1`), not from its code.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coda.errors import ConfigError, Problem

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"

RUNTIME = "CODA_TRAIN_RUNTIME"
"""Variable: the training runtime, ``[ClusterTrainingRuntime/ or TrainingRuntime/]name``."""

STOCK_RUNTIME = "torch-distributed"
"""The runtime that Trainer installs for torch."""

SERVICES = "coda-services"
"""Config map with the addresses of the services (`docs/settings.md`)."""

CREDENTIALS = "coda-store-{rights}"
"""Secret with the object store's credentials for one class of steps (decision 0011)."""

CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO")
"""Variables by which boto3, MLflow and git find the certificates of a site's own authority."""

REQUIRED = (
    "CODA_LANDING", "CODA_PLATFORM", "MLFLOW_TRACKING_URI", "CODA_DATA_REGISTRY", "CODA_DATA_REMOTE",
    "CODA_CHECKPOINTS",
)  # fmt: skip
OPTIONAL = (
    "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "CODA_MLFLOW_ARTIFACTS", "CODA_DATA_DOCS", "CODA_PUSHGATEWAY",
    "CODA_IMAGE", "CODA_IMAGE_ROOTS", "CODA_VERIFY_KEY", RUNTIME, *CERTIFICATES,
)  # fmt: skip
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

_NAME = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Key(_Strict):
    """A key of a config map or secret."""

    name: str
    key: str
    optional: bool = False


class Source(_Strict):
    """Where a variable's value is: one of the two."""

    configMapKeyRef: Key | None = None  # noqa: N815  Kubernetes' names
    secretKeyRef: Key | None = None  # noqa: N815


class Variable(_Strict):
    """A variable by reference: no value is ever written into a job."""

    name: str
    valueFrom: Source  # noqa: N815


class Trainer(_Strict):
    """What runs on every machine."""

    image: Annotated[str, Field(min_length=1, max_length=500)]
    command: Annotated[list[str], Field(min_length=1, max_length=128)]
    env: Annotated[list[Variable], Field(max_length=128)]
    numNodes: Annotated[int, Field(ge=1)]  # noqa: N815
    numProcPerNode: Annotated[int, Field(ge=1)] | None = None  # noqa: N815


class RuntimeRef(_Strict):
    """The training runtime that the job is made from."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    apiGroup: Literal["trainer.kubeflow.org"] = "trainer.kubeflow.org"  # noqa: N815
    kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"]


class Spec(_Strict):
    """What is asked for."""

    runtimeRef: RuntimeRef  # noqa: N815
    trainer: Trainer


class Owner(_Strict):
    """The pod of the step: Kubernetes deletes the job with it."""

    apiVersion: Literal["v1"] = "v1"  # noqa: N815
    kind: Literal["Pod"] = "Pod"
    name: str
    uid: str


class Metadata(_Strict):
    """Name and owner."""

    name: _NAME
    labels: dict[str, str]
    annotations: dict[str, str]
    ownerReferences: list[Owner] = []  # noqa: N815


class TrainJob(_Strict):
    """The whole document."""

    apiVersion: Literal["trainer.kubeflow.org/v1alpha1"] = "trainer.kubeflow.org/v1alpha1"  # noqa: N815
    kind: Literal["TrainJob"] = "TrainJob"
    metadata: Metadata
    spec: Spec

    @property
    def document(self) -> dict[str, Any]:
        """The job as Kubernetes takes it."""
        return self.model_dump(exclude_none=True)


def train_job(
    name: str,
    *,
    image: str,
    command: list[str],
    nodes: int,
    processes: int,
    run_id: str,
    environment: Mapping[str, str],
) -> TrainJob:
    """Return a job of several machines.

    Args:
        name: Its name, at most 44 characters, since Kubernetes makes host names of at most 63 from it.
        image: Image of its pods, best with a digest.
        command: What each machine runs.
        nodes: Machines.
        processes: Processes on each; 0 leaves it to the runtime, which starts one for each GPU.
        run_id: The run, noted with the job.
        environment: Of the step: the runtime's name, and its own pod, if it runs in one.

    Raises:
        ConfigError: The runtime's name cannot be understood.
    """
    stated = environment.get(RUNTIME) or STOCK_RUNTIME
    kind, _, runtime = stated.rpartition("/")
    if kind not in {"", "ClusterTrainingRuntime", "TrainingRuntime"} or not runtime:
        expected = "a name, or TrainingRuntime/name for one of the namespace"
        problem = Problem(RUNTIME, repr(stated), expected, f"Set {RUNTIME} to TrainingRuntime/coda-torch.")
        raise ConfigError("The training runtime cannot be understood.", [problem])
    pod, uid = environment.get("KFP_POD_NAME"), environment.get("KFP_POD_UID")
    variables = [_of_services(name, optional=False) for name in REQUIRED]
    variables += [_of_services(name, optional=True) for name in OPTIONAL]
    secret = CREDENTIALS.format(rights="train")
    variables += [Variable(name=key, valueFrom=Source(secretKeyRef=Key(name=secret, key=key))) for key in KEYS]
    return TrainJob(
        metadata=Metadata(
            name=name,
            labels={"app.kubernetes.io/part-of": "coda"},
            annotations={"coda.example.org/run": run_id},
            ownerReferences=[Owner(name=pod, uid=uid)] if pod and uid else [],
        ),
        spec=Spec(
            runtimeRef=RuntimeRef.model_validate({"name": runtime, "kind": kind or "ClusterTrainingRuntime"}),
            trainer=Trainer(
                image=image, command=command, env=variables, numNodes=nodes, numProcPerNode=processes or None
            ),
        ),
    )


def _of_services(name: str, *, optional: bool) -> Variable:
    key = Key(name=SERVICES, key=name, optional=optional)
    return Variable(name=name, valueFrom=Source(configMapKeyRef=key))
