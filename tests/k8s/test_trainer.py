"""The optional component for several machines: what the step asks for it may ask, and what its pods name is there."""

import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from cluster import OVERLAYS, STEP, Cluster
from test_manifests import VERSION
from test_runs_find_what_they_name import NAMES, known, outside, target  # noqa: F401  a fixture

from coda.runners.kubeflow import SERVICE_ACCOUNT
from coda.runners.spec import compiled_path, read_documents, with_a_waiting_step
from coda.trainer.train_job import RUNTIME, train_job

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed; it renders offline")

ASKED = [
    ("create", "trainjobs", "trainer.kubeflow.org"), ("get", "trainjobs", "trainer.kubeflow.org"),
    ("delete", "trainjobs", "trainer.kubeflow.org"), ("list", "pods", ""), ("get", "pods/log", ""),
]  # fmt: skip
"""What `coda.trainer.cluster` asks for."""


@pytest.fixture(scope="module", params=OVERLAYS)
def cluster(request, root, tmp_path_factory):
    """An overlay with the component added, as docs/kubernetes.md says."""
    copy = tmp_path_factory.mktemp("trainer") / "k8s"
    shutil.copytree(root / "k8s", copy)
    path = copy / "overlays" / request.param / "kustomization.yaml"
    overlay = yaml.safe_load(path.read_text())
    overlay["components"] = [*overlay.get("components", []), "../../components/trainer"]
    overlay.setdefault("namespace", "coda")
    path.write_text(yaml.safe_dump(overlay))
    done = subprocess.run(["kubectl", "kustomize", str(path.parent)], capture_output=True, text=True, check=True)
    return Cluster(request.param, [document for document in yaml.safe_load_all(done.stdout) if document])


@pytest.fixture
def job(cluster):
    return train_job(
        "coda-pretrain-x", image=cluster.services["CODA_IMAGE"], command=["python3"], nodes=2, processes=0, run_id="r",
        environment=cluster.services,
    ).document  # fmt: skip


@pytest.fixture
def runtime(cluster, job):
    """The runtime that the job is made from, where it is made."""
    ref = job["spec"]["runtimeRef"]
    return cluster.of_kind(ref["kind"], cluster.run_namespace)[ref["name"]]


@pytest.fixture
def pod(runtime):
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return replicated["template"]


def test_the_account_of_a_run_may_ask_what_the_step_asks_and_no_more(cluster):
    account, where = cluster.services[SERVICE_ACCOUNT], cluster.run_namespace
    for verb, resource, group in ASKED:
        assert cluster.may(account, verb, resource, "x", group), (verb, resource)
    granted = {
        (verb, resource, group)
        for rule in cluster.of_kind("Role", where)["coda-train-jobs"]["rules"]
        for verb in rule["verbs"] for resource in rule["resources"] for group in rule["apiGroups"]
    }  # fmt: skip
    assert granted == set(ASKED)


def test_the_runtime_is_one_of_torch_and_a_pod_of_kubernetes(runtime, pod):
    assert set(runtime["spec"]) == {"mlPolicy", "template"}
    assert "torch" in runtime["spec"]["mlPolicy"]
    # what Trainer finds the machines by, and the container that it gives its variables to
    assert pod["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    assert [item["name"] for item in pod["spec"]["template"]["spec"]["containers"]] == ["node"]
    inner = {**pod["spec"], "template": {**pod["spec"]["template"]}}
    inner["template"]["spec"] = {**inner["template"]["spec"], "restartPolicy": "Never"}
    document = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": inner}
    kubernetes_validate.validate(document, VERSION, strict=True)


def test_machines_meet_the_restricted_standard_and_have_no_token(cluster, pod):
    inner = pod["spec"]["template"]["spec"]
    account = cluster.of_kind("ServiceAccount", cluster.run_namespace)[inner["serviceAccountName"]]
    assert account["automountServiceAccountToken"] is False
    assert not cluster.rules_of(inner["serviceAccountName"], cluster.run_namespace)
    assert inner["automountServiceAccountToken"] is False
    assert inner["securityContext"]["runAsNonRoot"] is True
    assert inner["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    (container,) = inner["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    mounts = {item["name"]: item["mountPath"] for item in container["volumeMounts"]}
    assert mounts == {"shm": "/dev/shm", "ca": "/etc/coda/ca", "verify": "/etc/coda/verify"}
    assert set(mounts) == {item["name"] for item in inner["volumes"]}


def test_what_a_job_names_is_there(cluster, job, outside):  # noqa: F811
    maps = cluster.of_kind("ConfigMap", cluster.run_namespace)
    trainer = job["spec"]["trainer"]
    assert trainer["image"] == cluster.trigger["spec"]["template"]["spec"]["containers"][0]["image"]
    for item in trainer["env"]:
        source = item["valueFrom"]
        if "secretKeyRef" in source:
            assert source["secretKeyRef"]["key"] in known(outside, "secret", source["secretKeyRef"]["name"])[0]
        else:
            part = source["configMapKeyRef"]
            assert part["optional"] or part["key"] in maps[part["name"]]["data"], item["name"]
    assert job["spec"]["runtimeRef"] == {
        "name": "coda-torch", "apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime",
    }  # fmt: skip
    steps = read_documents(compiled_path("training").read_text())[1]["platforms"]["kubernetes"]["deploymentSpec"]
    passed = {item["configMapKey"] for part in steps["executors"]["exec-pretrain"]["configMapAsEnv"]
              for item in part["keyToEnv"]}  # fmt: skip
    assert RUNTIME in passed, "the step must be told which runtime"


def test_machines_reach_each_other_names_and_the_object_store_and_nobody_else_reaches_them(cluster, pod):
    own = (cluster.run_namespace, pod["spec"]["template"]["metadata"]["labels"])
    for port in (29500, 41234):
        assert cluster.connects(own, own, port)
    assert cluster.connects(own, *target(cluster, cluster.services["AWS_ENDPOINT_URL_S3"]))
    for where, protocol, port in NAMES:
        assert cluster.connects(own, where and (where, {}), port, protocol)
    assert not cluster.connects((cluster.run_namespace, STEP), own, 29500)
    assert not cluster.connects(own, None, 25)


def test_machines_fit_the_quota(cluster, pod):
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    for quota in cluster.of_kind("ResourceQuota", cluster.run_namespace).values():
        assert gpus <= int(quota["spec"]["hard"]["requests.nvidia.com/gpu"])


def test_a_step_that_waits_asks_for_no_gpu():
    text = compiled_path("training").read_text()
    before, after = read_documents(text), read_documents(with_a_waiting_step(text, "pretrain"))
    executors = after[0]["deploymentSpec"]["executors"]
    assert "accelerator" not in executors["exec-pretrain"]["container"]["resources"]
    assert executors["exec-pretrain"]["container"]["resources"] == executors["exec-release"]["container"]["resources"]
    assert executors["exec-train-head"] == before[0]["deploymentSpec"]["executors"]["exec-train-head"]
    pods = after[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert "tolerations" not in pods["exec-pretrain"]
    assert pods["exec-train-head"]["tolerations"]
