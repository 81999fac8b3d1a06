"""Rendered overlays, compiled pipelines and the trigger's submission, joined: a run finds what it names."""

import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
import yaml
from cluster import KUBEFLOW, OVERLAYS, STANDALONE, STEP, Cluster

from coda.runners.kubeflow import NAMESPACE, REQUESTS, SERVICE_ACCOUNT
from coda.runners.spec import PIPELINES, compiled_path, read_documents, with_image
from coda.settings import read_settings
from coda.trainer.train_job import CERTIFICATES
from pipelines.resources import SIGNING

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed; it renders offline")

ONLY_THE_TRIGGER = {
    "CODA_KFP_ENDPOINT",
    NAMESPACE,
    SERVICE_ACCOUNT,
    REQUESTS,
    "CODA_KFP_PIPELINE_ROOT",
    "CODA_QUEUE_URL",
}


@pytest.fixture(params=OVERLAYS)
def cluster(request):
    return Cluster(request.param)


@pytest.fixture(scope="session")
def outside(root):
    """Secrets and config maps that docs/kubernetes.md has people create: name -> keys, and whether it is optional."""
    text = (root / "docs" / "kubernetes.md").read_text()
    rows = re.findall(r"^\| (secret|config map) `([\w<>-]+)`[^|]*\| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) >= 8
    return {
        (kind, name): (set(re.findall(r"`([\w.-]+)`", keys)), "optional" in when) for kind, name, keys, when in rows
    }


def known(outside, kind, name):
    return outside.get((kind, re.sub(r"^coda-store-\w+$", "coda-store-<class>", name)))


@pytest.fixture(params=PIPELINES)
def submitted(request, cluster):
    """Spec and platform of a pipeline as the trigger of this overlay submits it."""
    text = with_image(compiled_path(request.param).read_text(), cluster.services["CODA_IMAGE"])
    spec, platform = read_documents(text)
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return [(key, item["container"], pods[key]) for key, item in spec["deploymentSpec"]["executors"].items()]


def test_steps_run_in_the_image_of_the_trigger(cluster, submitted):
    (container,) = cluster.trigger["spec"]["template"]["spec"]["containers"]
    assert read_settings(cluster.services).image == container["image"]
    assert {part["image"] for _, part, _ in submitted} == {container["image"]}


def test_an_overlay_of_ones_own_passes_its_image_on(tmp_path, root):
    shutil.copytree(root / "k8s", tmp_path / "k8s")
    folder = tmp_path / "k8s" / "overlays" / "gpu"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    base = yaml.safe_load((tmp_path / "k8s" / "base" / "kustomization.yaml").read_text())
    digest, named = "sha256:" + "a" * 64, base["images"][0]["newName"]
    kustomization["images"] = [{"name": named, "newName": "registry.test/coda", "digest": digest}]
    kustomization["replacements"] = base["replacements"]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    found = Cluster("gpu", [document for document in yaml.safe_load_all(done.stdout) if document])
    assert found.services["CODA_IMAGE"] == f"registry.test/coda@{digest}"


def test_runs_are_created_where_their_configuration_is(cluster):
    where = cluster.run_namespace
    assert where == cluster.trigger["metadata"]["namespace"]
    assert "coda-services" in cluster.of_kind("ConfigMap", where)
    # without users, Kubeflow takes no namespace
    assert (NAMESPACE in cluster.services) == (cluster.overlay not in STANDALONE)
    if cluster.overlay not in STANDALONE:
        labels = cluster.namespaces[where]
        # the profile controller's selector, and the one of SeaweedFS' network policy, in Kubeflow Pipelines 2.17.0
        assert labels["pipelines.kubeflow.org/enabled"] == "true"
        assert labels["app.kubernetes.io/part-of"] == "kubeflow-profile"


def test_nothing_is_done_to_pods_of_others(cluster):
    """A policy or a standard that takes in every pod belongs to a namespace that is ours alone."""
    if cluster.overlay in STANDALONE:
        assert not cluster.of_kind("Namespace")
        for name, policy in cluster.of_kind("NetworkPolicy").items():
            assert "app.kubernetes.io/name" in policy["spec"]["podSelector"]["matchLabels"], name


def test_the_account_of_a_run_can_start_its_pods_and_do_no_more(cluster):
    account = cluster.services[SERVICE_ACCOUNT]
    found = cluster.of_kind("ServiceAccount", cluster.run_namespace)[account]
    assert found.get("automountServiceAccountToken", True) is True, "driver and launcher read the pod's token"
    # env.go, object_store.go, launcher_v2.go and k8s.go of Kubeflow Pipelines 2.17.0; docs/workflow-rbac.md of Argo
    needed = [
        ("get", "configmaps", "kfp-launcher", ""),
        ("get", "secrets", "mlpipeline-minio-artifact", ""),
        ("get", "pods", "any", ""),
        ("create", "workflowtaskresults", None, "argoproj.io"),
        ("patch", "workflowtaskresults", "any", "argoproj.io"),
    ]
    for verb, resource, name, group in needed:
        assert cluster.may(account, verb, resource, name, group), (verb, resource)
    granted = [
        (verb, resource, group)
        for rule in cluster.rules_of(account, cluster.run_namespace)
        for verb in rule["verbs"] for resource in rule["resources"] for group in rule["apiGroups"]
    ]  # fmt: skip
    assert sorted(granted) == sorted((verb, resource, group) for verb, resource, _, group in needed)
    for secret in ("coda-store-release", "coda-mlflow", "coda-signing"):
        assert not cluster.may(account, "get", "secrets", secret)


def test_the_trigger_may_submit_and_has_no_key_it_does_not_use(cluster):
    pod = cluster.trigger["spec"]["template"]["spec"]
    secrets = {part["secretRef"]["name"] for part in pod["containers"][0]["envFrom"] if "secretRef" in part}
    assert secrets == {"coda-store-trigger"}
    if cluster.overlay not in STANDALONE:
        for resource in ("pipelines", "pipelineversions", "experiments", "runs"):
            for verb in ("create", "get", "list"):
                assert cluster.may(pod["serviceAccountName"], verb, resource, "x", "pipelines.kubeflow.org")
    assert not cluster.may(pod["serviceAccountName"], "get", "secrets", "coda-store-release")


def test_what_steps_read_exists_in_their_namespace(cluster, submitted, outside):
    maps = cluster.of_kind("ConfigMap", cluster.run_namespace)
    for step, _, pod in submitted:
        for part in pod.get("configMapAsEnv", ()):
            data = maps[part["configMapName"]]["data"]
            missing = {item["configMapKey"] for item in part["keyToEnv"]} - set(data)
            assert part.get("optional") or not missing, (step, missing)
        for part in pod.get("configMapAsVolume", ()):
            keys, optional = outside["config map", part["configMapName"]]
            assert keys
            assert optional <= part.get("optional", False), step
        for part in pod.get("secretAsEnv", ()):
            keys, optional = known(outside, "secret", part["secretName"])
            assert {item["secretKey"] for item in part["keyToEnv"]} <= keys, step
            assert optional <= part.get("optional", False), step
        for part in pod.get("secretAsVolume", ()):
            keys, optional = known(outside, "secret", part["secretName"])
            assert optional <= part.get("optional", False), step


def test_what_the_services_read_exists_in_their_namespace(cluster, outside):
    for name, deployment in cluster.of_kind("Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        where = deployment["metadata"]["namespace"]
        assert pod["serviceAccountName"] in cluster.of_kind("ServiceAccount", where), name
        for item in found(pod, "secretKeyRef"):
            assert item["key"] in known(outside, "secret", item["name"])[0], name
        for item in found(pod, "secretRef"):
            assert known(outside, "secret", item["name"]), name
        for item in found(pod, "secret"):
            keys = {part["key"] for part in item.get("items", ())}
            assert keys <= known(outside, "secret", item["secretName"])[0], name
        for item in found(pod, "configMapKeyRef"):
            data = cluster.of_kind("ConfigMap", where)[item["name"]]["data"]
            assert item.get("optional") or item["key"] in data, name
        for item in found(pod, "configMap"):
            assert ("config map", item["name"]) in outside, name
            assert item["optional"] is True, name
        for item in found(pod, "persistentVolumeClaim"):
            assert item["claimName"] in cluster.of_kind("PersistentVolumeClaim", where), name


def found(value, key):
    """Values of a key at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from found(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from found(inner, key)


def test_every_setting_of_the_cluster_reaches_the_steps(cluster, submitted):
    for step, _, pod in submitted:
        passed = {item["configMapKey"] for part in pod["configMapAsEnv"] for item in part["keyToEnv"]}
        assert set(cluster.services) - ONLY_THE_TRIGGER <= passed, step
        settings = read_settings({key: value for key, value in cluster.services.items() if key in passed})
        assert settings.s3_endpoint == cluster.services["AWS_ENDPOINT_URL_S3"]


def test_files_that_variables_name_are_mounted(root, submitted):
    """The paths that k8s/base/services.yaml tells people to set are where the pods have them."""
    text = (root / "k8s" / "base" / "services.yaml").read_text()
    told = dict(re.findall(r"^#   ([A-Z_, ]+): (/etc/coda/\S+)", text, re.MULTILINE))
    paths = {name.strip(): path for names, path in told.items() for name in names.split(",")}
    assert set(paths) == {*CERTIFICATES, SIGNING, "CODA_VERIFY_KEY"}
    for step, _, pod in submitted:
        passed = {item["configMapKey"] for part in pod["configMapAsEnv"] for item in part["keyToEnv"]}
        mounts = {part["mountPath"] for kind in ("configMapAsVolume", "secretAsVolume") for part in pod.get(kind, ())}
        for name in passed & set(paths):
            assert paths[name].rpartition("/")[0] in mounts, (step, name)
        assert ("CODA_SIGNING_KEY" in passed) == ("register" in step), step


def test_priority_classes_are_used_or_not_there(cluster, submitted):
    named = {pod.get("priorityClassName") for _, _, pod in submitted}
    services = cluster.of_kind("Deployment").values()
    named |= {item["spec"]["template"]["spec"].get("priorityClassName") for item in services}
    assert set(cluster.of_kind("PriorityClass")) <= named


def labels_of(cluster, name):
    item = cluster.of_kind("Deployment")[name]
    return item["metadata"]["namespace"], item["spec"]["template"]["metadata"]["labels"]


def target(cluster, address):
    """Pod (or None for the outside) and port of an address in the config map, as Kubernetes resolves it."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    host = parts.hostname.removesuffix(".svc.cluster.local").split(".")
    service = cluster.of_kind("Service", cluster.run_namespace).get(host[0]) if len(host) == 1 else None
    if len(host) == 1:
        assert service is not None, f"{address}: no such service in {cluster.run_namespace}"
        (mapped,) = [item for item in service["spec"]["ports"] if item["port"] == port]
        pod = next(
            item for item in cluster.of_kind("Deployment").values()
            if service["spec"]["selector"].items() <= item["spec"]["template"]["metadata"]["labels"].items()
        )  # fmt: skip
        (container,) = pod["spec"]["template"]["spec"]["containers"]
        ports = {item["name"]: item["containerPort"] for item in container["ports"]}
        return labels_of(cluster, pod["metadata"]["name"]), ports.get(mapped["targetPort"], mapped["targetPort"])
    return ((host[1], {}) if host[1:2] == [KUBEFLOW] and parts.hostname.endswith(".svc.cluster.local") else None), port


NAMES = [("kube-system", "UDP", 53), (None, "UDP", 53), (None, "TCP", 53), ("openshift-dns", "UDP", 5353)]
"""Where names are resolved: CoreDNS, a node-local cache (an address of the node), OpenShift."""


def test_every_address_can_be_reached(cluster):
    step, trigger = (cluster.run_namespace, STEP), labels_of(cluster, "trigger")
    for key in ("AWS_ENDPOINT_URL_S3", "MLFLOW_TRACKING_URI", "CODA_PUSHGATEWAY", "CODA_DATA_REGISTRY"):
        assert cluster.connects(step, *target(cluster, cluster.services[key])), key
    for key in ("AWS_ENDPOINT_URL_S3", "CODA_KFP_ENDPOINT"):
        assert cluster.connects(trigger, *target(cluster, cluster.services[key])), key
    assert cluster.connects(labels_of(cluster, "mlflow"), *target(cluster, cluster.services["AWS_ENDPOINT_URL_S3"]))
    database = labels_of(cluster, "postgres") if cluster.overlay == "dev" else None
    assert cluster.connects(labels_of(cluster, "mlflow"), database, 5432)
    for where, protocol, port in NAMES:
        for sender in (step, trigger, labels_of(cluster, "mlflow")):
            assert cluster.connects(sender, where and (where, {}), port, protocol), (where, port)
    # driver, launcher and executor: the Kubernetes API (behind its service it listens on 6443), Kubeflow's API, its
    # metadata store and its object store
    for port in (443, 6443):
        assert cluster.connects(step, None, port)
    for port in (8887, 8888, 8080, 8333):
        assert cluster.connects(step, (KUBEFLOW, {}), port)
    for name, port in (("trigger", 8080), ("pushgateway", 9091)):
        assert cluster.connects(("monitoring", {}), labels_of(cluster, name), port)


def test_nobody_else_is_let_in(cluster):
    stranger = (cluster.run_namespace, {"app": "stranger"})
    for name, port in (("trigger", 8080), ("trigger", 8081), ("mlflow", 5000), ("pushgateway", 9091)):
        assert not cluster.connects(stranger, labels_of(cluster, name), port), name
        assert not cluster.connects(("senders", {}), labels_of(cluster, name), port), name
    assert not cluster.connects(labels_of(cluster, "pushgateway"), None, 443)
    if cluster.overlay not in STANDALONE:
        assert not cluster.connects((cluster.run_namespace, STEP), None, 25)
        assert not cluster.connects(stranger, None, 443)
