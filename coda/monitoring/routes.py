"""Who receives which alert, as code: one tree of routes for Alertmanager beside the compose stack and on a cluster.

Each tier has a receiver of its own, as an example: an incoming webhook of Slack, or of a chat that takes the same form
(Mattermost, Rocket.Chat). Its address is a secret, read from a file (compose) or a secret (cluster).
"""

import re
from typing import Any

import yaml

from coda.monitoring.alerts import Tier

REPEAT: dict[Tier, str] = {"page": "1h", "same-day": "4h", "weekly": "24h"}
"""Tier -> how often somebody is told again while an alert lasts."""

ADDRESSES = "coda-alert-receivers"
"""Secret of a cluster that holds each tier's address, by the tier's name."""

FOLDER = "/run/secrets"
"""Where each tier's address is, beside the compose stack: a file of this folder."""

TITLE = (
    "{{ .CommonLabels.alertname }}{{ with .CommonLabels.source }}: {{ . }}{{ end }} "
    "({{ .Status }}, {{ .CommonLabels.severity }})"
)
TEXT = (
    "{{ range .Alerts }}{{ .Annotations.summary }}{{ with .Annotations.page }} {{ . }}{{ end }}\n{{ end }}"
    "What to do: {{ .CommonAnnotations.runbook_url }}"
)

INHIBITIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # while somebody is paged about a source, what the weekly review would hear of it waits
    ('severity="page"', 'severity="weekly"', ("source",)),
    # a trigger that does not look is why nothing arrives and batches wait
    ('alertname="CodaTriggerSilent"', 'alertname=~"CodaNothingArrived|CodaBatchWaiting"', ()),
    # what left its history because controls did, or in a batch that was refused, is no news of its own
    ('alertname=~"CodaControlsDrift|CodaBatchRefused"', 'alertname=~"Coda(Slow|Sudden|Acquisition|Embedding)Drift"',
     ("source",)),
)  # fmt: skip
"""While the first holds, the second is not told where they have the same values of these labels."""


def routes_yaml() -> str:
    """Return the configuration of the compose stack's Alertmanager."""
    receivers = [
        {"name": tier, "slack_configs": [{"api_url_file": f"{FOLDER}/alert-{tier}", **_message(tier, "send_resolved")}]}
        for tier in REPEAT
    ]
    inhibitions = [
        {"source_matchers": [source], "target_matchers": [target], **({"equal": list(same)} if same else {})}
        for source, target, same in INHIBITIONS
    ]
    return _text({"route": _route(), "inhibit_rules": inhibitions, "receivers": receivers})


def route_resource_yaml() -> str:
    """Return the same as a resource of the Prometheus operator (AlertmanagerConfig)."""
    receivers = [
        {
            "name": tier,
            "slackConfigs": [{"apiURL": {"name": ADDRESSES, "key": tier}, **_message(tier, "sendResolved")}],
        }
        for tier in REPEAT
    ]
    inhibitions = [
        {
            "sourceMatch": [_matcher(source)],
            "targetMatch": [_matcher(target)],
            **({"equal": list(same)} if same else {}),
        }
        for source, target, same in INHIBITIONS
    ]
    route = _camel(_route())
    for child in route["routes"]:
        child["matchers"] = [_matcher(item) for item in child["matchers"]]
    spec = {"route": route, "inhibitRules": inhibitions, "receivers": receivers}
    kind = {"apiVersion": "monitoring.coreos.com/v1alpha1", "kind": "AlertmanagerConfig"}
    return _text({**kind, "metadata": {"name": "coda"}, "spec": spec})


def _route() -> dict[str, Any]:
    urgent: tuple[Tier, ...] = ("page", "same-day")
    return {
        "receiver": "weekly",
        "group_by": ["alertname", "source"],
        "group_wait": "1m",
        "group_interval": "10m",
        "repeat_interval": REPEAT["weekly"],
        "routes": [
            {"receiver": tier, "repeat_interval": REPEAT[tier], "matchers": [f'severity="{tier}"']} for tier in urgent
        ],
    }


def _message(tier: Tier, resolved: str) -> dict[str, Any]:
    return {"title": TITLE, "text": TEXT, resolved: tier != "weekly"}


def _matcher(text: str) -> dict[str, str]:
    name, _, value = text.partition("=")
    # a bare '=', the default, is no text to every reader of YAML
    return {"name": name, **({"matchType": "=~"} if value[0] == "~" else {}), "value": value.lstrip("~").strip('"')}


def _camel(route: dict[str, Any]) -> dict[str, Any]:
    """Return a route with the names of its keys as Kubernetes writes them."""
    found: dict[str, Any] = {}
    for name, value in route.items():
        key = re.sub(r"_(\w)", lambda letter: letter[1].upper(), name)
        found[key] = [_camel(child) for child in value] if name == "routes" else value
    return found


def _text(document: dict[str, Any]) -> str:
    text = yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)
    return (
        f"# Written by `coda monitoring alerts` from coda/monitoring/routes.py; a test holds the two together.\n{text}"
    )
