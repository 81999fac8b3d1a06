"""What Kubernetes, Kubeflow Pipelines and Argo would make of our manifests, as far as our own objects decide it.

Written from their documentation and sources (decision 0025), not from our manifests.
"""

import subprocess
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ("dev", "gpu", "argo-events", "knative")
STANDALONE = frozenset({"dev"})
"""Overlays for Kubeflow Pipelines alone, which creates every run in its own namespace, whatever was asked for."""

KUBEFLOW = "kubeflow"


@cache
def _text(overlay):
    command = ["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(overlay):
    return [document for document in yaml.safe_load_all(_text(overlay)) if document]


class Cluster:
    """The objects of one overlay, applied to an empty cluster with Kubeflow."""

    def __init__(self, overlay, documents=None):
        self.overlay = overlay
        self.documents = rendered(overlay) if documents is None else documents

    def of_kind(self, kind, namespace=None):
        found = (item for item in self.documents if item["kind"] == kind)
        return {
            item["metadata"]["name"]: item for item in found
            if namespace is None or item["metadata"].get("namespace") == namespace
        }  # fmt: skip

    @property
    def trigger(self):
        (pod,) = [item for name, item in self.of_kind("Deployment").items() if name == "trigger"]
        return pod

    @property
    def services(self):
        """What the trigger's environment says of the services: it reads the config map as it is."""
        pod = self.trigger["spec"]["template"]["spec"]
        names = [part["configMapRef"]["name"] for part in pod["containers"][0]["envFrom"] if "configMapRef" in part]
        maps = self.of_kind("ConfigMap", self.trigger["metadata"]["namespace"])
        return {key: value for name in names for key, value in maps[name]["data"].items()}

    @property
    def run_namespace(self):
        """Where Kubeflow creates the runs that the trigger asks for."""
        return KUBEFLOW if self.overlay in STANDALONE else self.services.get("CODA_KFP_NAMESPACE", KUBEFLOW)

    @property
    def namespaces(self):
        """Labels of the namespaces."""
        ours = {name: item["metadata"].get("labels", {}) for name, item in self.of_kind("Namespace").items()}
        used = {item["metadata"].get("namespace") for item in self.documents} - {None}
        others = {"kubeflow", "kube-system", "monitoring", "argo-events", "knative-eventing", "openshift-dns",
                  "senders"}  # fmt: skip
        names = {name: {} for name in used | others} | ours
        return {name: {**labels, "kubernetes.io/metadata.name": name} for name, labels in names.items()}

    def rules_of(self, account, namespace):
        """Rules that an account of a namespace has there."""
        roles = self.of_kind("Role", namespace)
        return [
            rule
            for binding in self.of_kind("RoleBinding", namespace).values()
            if {"kind": "ServiceAccount", "name": account, "namespace": namespace} in binding["subjects"]
            for rule in roles[binding["roleRef"]["name"]]["rules"]
        ]

    def may(self, account, verb, resource, name=None, group=""):
        """Whether an account may do something in the namespace of the runs."""
        return any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            and ("resourceNames" not in rule or name in rule["resourceNames"])
            for rule in self.rules_of(account, self.run_namespace)
        )  # fmt: skip

    def connects(self, sender, receiver, port, protocol="TCP"):
        """Whether network policies let a pod send to another; each is (namespace, labels), or None for the outside."""
        return all(
            self._lets(pod, peer, direction, port, protocol)
            for pod, peer, direction in ((sender, receiver, "egress"), (receiver, sender, "ingress")) if pod is not None
        )  # fmt: skip

    def _lets(self, pod, peer, direction, port, protocol):
        namespace, labels = pod
        policies = [
            item for item in self.of_kind("NetworkPolicy", namespace).values()
            if direction.title() in item["spec"]["policyTypes"] and _matches(item["spec"]["podSelector"], labels)
        ]  # fmt: skip
        rules = [rule for policy in policies for rule in policy["spec"].get(direction) or ()]
        key = "to" if direction == "egress" else "from"
        return not policies or any(
            self._on(rule, port, protocol)
            and (not rule.get(key) or any(self._is(one, peer, namespace) for one in rule[key]))
            for rule in rules
        )

    def _on(self, rule, port, protocol):
        return not rule.get("ports") or {"protocol": protocol, "port": port} in rule["ports"]

    def _is(self, selector, peer, namespace):
        if peer is None:
            return False
        where, labels = peer
        if "namespaceSelector" in selector:
            right = _matches(selector["namespaceSelector"], self.namespaces[where])
        else:
            right = where == namespace
        return right and _matches(selector.get("podSelector", {}), labels)


def _matches(selector, labels):
    assert set(selector) <= {"matchLabels"}, "this evaluator knows matchLabels alone"
    return selector.get("matchLabels", {}).items() <= labels.items()


STEP = {"pipelines.kubeflow.org/v2_component": "true"}
"""Label of all pods of a run: driver, launcher with the step, executor (Kubeflow's compiler, `argo.go`)."""
