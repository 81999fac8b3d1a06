"""The Kubernetes manifests, rendered offline and held against the Kubernetes schemas and our own rules."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cluster import OVERLAYS, STANDALONE, rendered

from coda.trigger.events import Notice, read_message
from coda.trigger.webhook_server import PATH

VERSION = "1.31"
CUSTOM = ("argoproj.io/", "eventing.knative.dev/")
SCHEMAS = Path(__file__).parent / "schemas"
"""Of the custom resources: small, ours, and strict, because no schemas of theirs come with a package."""

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed; it renders offline")


@pytest.fixture(params=OVERLAYS)
def overlay(request):
    return request.param


@pytest.fixture
def documents(overlay):
    return rendered(overlay)


def pods(documents):
    for document in documents:
        if document["kind"] == "Deployment":
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def test_every_document_fits_the_kubernetes_schema(documents):
    assert len(documents) > 10
    for document in documents:
        check(document)


def check(document):
    if not document["apiVersion"].startswith(CUSTOM):
        kubernetes_validate.validate(document, VERSION, strict=True)
        return
    schema = json.loads((SCHEMAS / f"{document['kind']}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)


@pytest.mark.parametrize(("overlay", "count"), [("argo-events", 3), ("knative", 2)])
def test_a_misspelt_key_of_a_custom_resource_is_caught(overlay, count):
    custom = [item for item in rendered(overlay) if item["apiVersion"].startswith(CUSTOM)]
    assert len(custom) == count
    for document in custom:
        check(document)
        for place in (document, document["metadata"], document["spec"], *inner(document["spec"])):
            place["misspelt"] = True
            with pytest.raises(jsonschema.ValidationError):
                check(document)
            del place["misspelt"]


def inner(value):
    """Objects inside a specification whose keys the API fixes, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        if isinstance(item, dict | list) and name not in {"headers", "minio"}:
            if isinstance(item, dict):
                yield item
            yield from inner(item)


def let_in(documents, port):
    """Senders that any network policy lets in to a port."""
    return [
        str(sender)
        for item in documents if item["kind"] == "NetworkPolicy"
        for rule in item["spec"].get("ingress", []) if {"protocol": "TCP", "port": port} in rule.get("ports", [])
        for sender in rule["from"]
    ]  # fmt: skip


def test_webhook_is_open_to_those_who_may_send_and_metrics_are_not(documents):
    (service,) = [
        item for item in documents if item["metadata"]["name"] == "trigger-webhook" and item["kind"] == "Service"
    ]
    (port,) = [item["port"] for item in service["spec"]["ports"]]
    assert any("sends-events" in sender for sender in let_in(documents, port))
    assert all("monitoring" in sender for sender in let_in(documents, 8080))


def test_argo_events_and_knative_send_to_the_webhook_and_are_let_in():
    host = "trigger-webhook.coda.svc.cluster.local:8081"
    argo, knative = rendered("argo-events"), rendered("knative")
    (sensor,) = [item for item in argo if item["kind"] == "Sensor"]
    http = sensor["spec"]["triggers"][0]["template"]["http"]
    assert http["url"] == f"http://{host}{PATH}"
    assert any(sensor["metadata"]["namespace"] in sender for sender in let_in(argo, 8081))
    (trigger,) = [item for item in knative if item["kind"] == "Trigger"]
    assert trigger["spec"]["subscriber"]["uri"].endswith(f"@{host}{PATH}")
    assert any("knative-eventing" in sender for sender in let_in(knative, 8081))
    # what the sensor makes of a notification is a message the webhook understands
    (payload,) = http["payload"]
    record = {"eventName": "s3:ObjectCreated:Put", "eventSource": "minio:s3",
              "s3": {"bucket": {"name": "b"}, "object": {"key": "lab%2Fb1%2Fmanifest.json"}}}  # fmt: skip
    event = {payload["src"]["dataKey"]: [record]}
    message = read_message(json.dumps({payload["dest"]: event[payload["src"]["dataKey"]]}))
    assert message.notices == (Notice("b", "lab/b1/manifest.json"),)


def test_webhook_is_given_its_secrets_by_reference(documents):
    from coda.trigger.authentication import KEY, TOKEN

    pod = next(pod for name, pod in pods(documents) if name == "trigger")
    (container,) = pod["containers"]
    environment = {item["name"]: item for item in container["env"]}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (volume,) = [volume for volume in pod["volumes"] if volume.get("secret", {}).get("secretName") == "coda-webhook"]
    (item,) = volume["secret"]["items"]
    assert environment[f"{TOKEN}_FILE"]["value"] == f"{mounted[volume['name']]}/{item['path']}"
    assert environment[KEY]["valueFrom"]["secretKeyRef"]["name"] == "coda-webhook"


def test_the_trigger_is_given_its_receiver_of_notifications_by_reference_and_may_reach_it(documents, root):
    from coda.trigger.receiver import KEY, ON, SITE, URL

    pod = next(pod for name, pod in pods(documents) if name == "trigger")
    environment = {item["name"]: item.get("valueFrom", {}).get("secretKeyRef") for item in pod["containers"][0]["env"]}
    given = [environment[name] for name in (URL, KEY, ON, SITE)]
    assert [(item["name"], item["key"], item["optional"]) for item in given] == [
        ("coda-notify", key, True) for key in ("url", "key", "on", "site-url")
    ]
    (row,) = re.findall(
        r"^\| secret `coda-notify` \| (.*) \| optional", (root / "docs/kubernetes.md").read_text(), re.M
    )
    assert {item["key"] for item in given} == set(re.findall("`([\\w-]+)`", row))
    (policy,) = [
        item for item in documents if item["kind"] == "NetworkPolicy" and item["metadata"]["name"] == "trigger"
    ]
    assert {"ports": [{"protocol": "TCP", "port": 443}]} in policy["spec"]["egress"], "to any address, by https"


def test_a_misspelt_key_is_caught(documents):
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolic"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSION, strict=True)
    del container["imagePullPolic"]


def test_pods_meet_the_restricted_standard(documents, overlay):
    found = list(pods(documents))
    besides = {"postgres", "data-registry"} if overlay == "dev" else set()
    assert {name for name, _ in found} == {"trigger", "mlflow", "pushgateway", *besides}
    for name, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        assert pod["automountServiceAccountToken"] is False, name
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"]["drop"] == ["ALL"], name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert ":" in container["image"], f"{name} runs an image without a version"
            assert not container["image"].endswith(":latest"), name
    for namespace in [document for document in documents if document["kind"] == "Namespace"]:
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_mlflow_answers_probes_and_steps_by_the_names_they_use(documents):
    """The kubelet names a pod's address, which is no allowed host; MLflow answers its own page of health to anybody."""
    from mlflow.server.security_utils import is_allowed_host_header, is_health_endpoint

    (container,) = next(pod["containers"] for name, pod in pods(documents) if name == "mlflow")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert is_health_endpoint(container[probe]["httpGet"]["path"])
    (hosts,) = [text.split("=", 1)[1].split(",") for text in container["args"] if text.startswith("--allowed-hosts=")]
    settings = next(document for document in documents if document["kind"] == "ConfigMap")["data"]
    assert is_allowed_host_header(hosts, urlsplit(settings["MLFLOW_TRACKING_URI"]).netloc)
    assert not is_allowed_host_header(hosts, "elsewhere.example.org:5000")


def test_each_service_has_its_own_identity(documents):
    accounts = [pod["serviceAccountName"] for _, pod in pods(documents)]
    known = {document["metadata"]["name"] for document in documents if document["kind"] == "ServiceAccount"}
    assert len(set(accounts)) == len(accounts)
    assert set(accounts) < known
    assert not [document for document in documents if document["kind"].startswith("Cluster")]


def test_secrets_are_referred_to_and_never_written(documents):
    assert not [document for document in documents if document["kind"] == "Secret"]
    text = yaml.safe_dump_all(documents)
    assert {"coda-store-trigger", "coda-store-mlflow"} <= set(re.findall(r"coda-store-\w+", text))
    settings = next(document for document in documents if document["kind"] == "ConfigMap")["data"]
    assert not [key for key in settings if "SECRET" in key or "PASSWORD" in key or "ACCESS_KEY" in key]


def test_settings_of_the_cluster_are_settings_the_program_knows(documents):
    from coda.runners.kubeflow import NAMESPACE, REQUESTS, SERVICE_ACCOUNT
    from coda.settings import VARIABLES, read_settings

    data = next(document for document in documents if document["kind"] == "ConfigMap")["data"]
    known = {*VARIABLES.values(), NAMESPACE, SERVICE_ACCOUNT, REQUESTS, "AWS_DEFAULT_REGION"}
    assert set(data) <= known
    assert read_settings(data).kfp_endpoint == data["CODA_KFP_ENDPOINT"]


def test_every_pod_has_a_policy_and_a_namespace_of_ours_denies_by_default(documents, overlay):
    policies = [document for document in documents if document["kind"] == "NetworkPolicy"]
    deny = [policy["spec"] for policy in policies if policy["metadata"]["name"] == "default-deny"]
    assert deny == ([] if overlay in STANDALONE else [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}])
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
