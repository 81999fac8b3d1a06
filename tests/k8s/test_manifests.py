"""The Kubernetes manifests, rendered offline and held against the Kubernetes schemas and our own rules."""

import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

OVERLAYS = ("dev", "gpu")
VERSION = "1.31"

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed; it renders offline")


@pytest.fixture(scope="session", params=OVERLAYS)
def documents(request, root):
    done = subprocess.run(
        ["kubectl", "kustomize", str(root / "k8s" / "overlays" / request.param)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def pods(documents):
    for document in documents:
        if document["kind"] == "Deployment":
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def test_every_document_fits_the_kubernetes_schema(documents):
    assert len(documents) > 10
    for document in documents:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_misspelt_key_is_caught(documents):
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolic"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSION, strict=True)
    del container["imagePullPolic"]


def test_pods_meet_the_restricted_standard(documents):
    found = list(pods(documents))
    assert {name for name, _ in found} == {"trigger", "mlflow", "pushgateway"}
    for name, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"]["drop"] == ["ALL"], name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert ":" in container["image"], f"{name} runs an image without a version"
            assert not container["image"].endswith(":latest"), name
    namespace = next(document for document in documents if document["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_each_service_has_its_own_identity_and_no_rights_in_the_cluster(documents):
    accounts = [pod["serviceAccountName"] for _, pod in pods(documents)]
    known = {document["metadata"]["name"] for document in documents if document["kind"] == "ServiceAccount"}
    assert len(set(accounts)) == len(accounts)
    assert set(accounts) < known
    assert not [document for document in documents if "Role" in document["kind"]]


def test_secrets_are_referred_to_and_never_written(documents):
    assert not [document for document in documents if document["kind"] == "Secret"]
    text = yaml.safe_dump_all(documents)
    assert {"coda-store-trigger", "coda-store-mlflow"} <= set(re.findall(r"coda-store-\w+", text))
    settings = next(document for document in documents if document["kind"] == "ConfigMap")["data"]
    assert not [key for key in settings if "SECRET" in key or "PASSWORD" in key or "ACCESS_KEY" in key]


def test_settings_of_the_cluster_are_settings_the_program_knows(documents):
    from coda.settings import VARIABLES, read_settings

    data = next(document for document in documents if document["kind"] == "ConfigMap")["data"]
    assert set(data) - {"AWS_DEFAULT_REGION"} <= set(VARIABLES.values())
    assert read_settings(data).kfp_endpoint == data["CODA_KFP_ENDPOINT"]


def test_everything_is_denied_by_default_and_every_pod_has_a_policy(documents):
    policies = [document for document in documents if document["kind"] == "NetworkPolicy"]
    deny = next(policy for policy in policies if policy["metadata"]["name"] == "default-deny")
    assert deny["spec"]["podSelector"] == {}
    assert set(deny["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in deny["spec"]
    assert "egress" not in deny["spec"]
    selected = {
        policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name") for policy in policies
    }
    assert {name for name, _ in pods(documents)} <= selected


def test_services_select_pods_that_exist(documents):
    labels = [
        document["spec"]["template"]["metadata"]["labels"] for document in documents if document["kind"] == "Deployment"
    ]
    for document in documents:
        if document["kind"] == "Service":
            wanted = document["spec"]["selector"].items()
            assert any(wanted <= label.items() for label in labels), document["metadata"]["name"]
