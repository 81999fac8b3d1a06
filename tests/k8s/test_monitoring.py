"""The optional components for clusters that watch: what is scraped, who is told, and what Grafana shows."""

import json
import shutil
import subprocess

import pytest
import yaml
from cluster import OVERLAYS, Cluster

from coda.monitoring.alerts import ALERTS

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed; it renders offline")

COMPONENTS = ["../../components/prometheus-operator", "../../components/grafana"]


@pytest.fixture(scope="module", params=OVERLAYS)
def watched(request, root, tmp_path_factory):
    """An overlay with both components added, as docs/kubernetes.md says."""
    copy = tmp_path_factory.mktemp("watched") / "k8s"
    shutil.copytree(root / "k8s", copy)
    path = copy / "overlays" / request.param / "kustomization.yaml"
    overlay = yaml.safe_load(path.read_text())
    overlay["components"] = [*overlay.get("components", []), *COMPONENTS]
    overlay.setdefault("namespace", "coda")
    path.write_text(yaml.safe_dump(overlay))
    done = subprocess.run(["kubectl", "kustomize", str(path.parent)], capture_output=True, text=True, check=True)
    return Cluster(request.param, [document for document in yaml.safe_load_all(done.stdout) if document])


def test_every_monitor_selects_one_service_and_a_port_of_its_pods(watched):
    namespace = watched.trigger["metadata"]["namespace"]
    services, pods = watched.of_kind("Service", namespace), watched.of_kind("Deployment", namespace)
    for monitor in watched.of_kind("ServiceMonitor", namespace).values():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = [item for item in services.values() if wanted <= item["metadata"].get("labels", {}).items()]
        (endpoint,) = monitor["spec"]["endpoints"]
        (port,) = [item for item in service["spec"]["ports"] if item["name"] == endpoint["port"]]
        pod = pods[service["metadata"]["name"]]["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ports = [item for container in pod["spec"]["containers"] for item in container["ports"]]
        assert port["targetPort"] in {item["name"] for item in ports}
    assert set(watched.of_kind("ServiceMonitor", namespace)) == {"coda-trigger", "coda-pushgateway"}
    pushed = watched.of_kind("ServiceMonitor", namespace)["coda-pushgateway"]["spec"]["endpoints"]
    assert [endpoint["honorLabels"] for endpoint in pushed] == [True], "sources would all be called 'pushgateway'"


def test_every_alert_has_a_route_and_every_route_a_receiver(watched):
    (rules,) = watched.of_kind("PrometheusRule").values()
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in alerts} == {alert.name for alert in ALERTS}
    (config,) = watched.of_kind("AlertmanagerConfig").values()
    route, receivers = config["spec"]["route"], {item["name"]: item for item in config["spec"]["receivers"]}
    routed = {matcher["value"]: part["receiver"] for part in route["routes"] for matcher in part["matchers"]}
    tiers = {rule["labels"]["severity"] for rule in alerts}
    assert {tier: routed.get(tier, route["receiver"]) for tier in tiers} == {tier: tier for tier in tiers}
    for name, receiver in receivers.items():
        (chat,) = receiver["slackConfigs"]
        # addresses of people are nobody's business but the operator's
        assert chat["apiURL"] == {"name": "coda-alert-receivers", "key": name}
    assert tiers == set(receivers)


def test_the_cluster_routes_and_inhibits_as_the_compose_stack_does(watched, root):
    """The one is read by Alertmanager, the other by the operator, which writes the first from it."""
    (config,) = watched.of_kind("AlertmanagerConfig").values()
    stack = yaml.safe_load((root / "docker/alertmanager/alertmanager.yml").read_text())

    def text(matcher):
        return f'{matcher["name"]}{matcher.get("matchType", "=")}"{matcher["value"]}"'

    here = [
        (*map(text, item["sourceMatch"]), *map(text, item["targetMatch"]), *item.get("equal", ()))
        for item in config["spec"]["inhibitRules"]
    ]
    there = [
        (*item["source_matchers"], *item["target_matchers"], *item.get("equal", ())) for item in stack["inhibit_rules"]
    ]
    assert here == there
    routes = {part["receiver"]: [text(item) for item in part["matchers"]] for part in config["spec"]["route"]["routes"]}
    assert routes == {part["receiver"]: part["matchers"] for part in stack["route"]["routes"]}


def test_dashboards_are_those_of_the_compose_stack(watched, root):
    dashboards = watched.of_kind("ConfigMap", watched.trigger["metadata"]["namespace"])["coda-dashboards"]
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    files = {path.name: json.loads(path.read_text()) for path in (root / "docker/grafana/dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in dashboards["data"].items()} == files
    # kubectl apply keeps what it applied in an annotation of at most 256 KiB
    assert sum(len(text) for text in dashboards["data"].values()) < 250_000
