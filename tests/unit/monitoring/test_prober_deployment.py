"""The prober's manifest for a real cluster says the same as the code and the files beside it."""

from typing import Any

import pytest
import yaml

from kproxy.api import manifests
from kproxy.controlplane.access import identity, roles
from kproxy.monitoring import profiles
from kproxy.monitoring.prober import __main__ as prober

MANIFEST = profiles.DEPLOY / "prober.yaml"
FOUND_BY = {
    "__meta_kubernetes_pod_label_k8s_app": lambda pod, port: pod["metadata"]["labels"]["k8s-app"],
    "__meta_kubernetes_pod_container_port_name": lambda pod, port: port["name"],
}


@pytest.fixture
def objects() -> dict[str, Any]:
    """Return the objects of the manifest by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.fixture
def pod(objects: dict[str, Any]) -> dict[str, Any]:
    """Return the template of its pods."""
    template: dict[str, Any] = objects["DaemonSet"]["spec"]["template"]
    return template


def test_all_of_it_is_understood() -> None:
    good, problems = manifests.read_manifests(MANIFEST)
    # Our own API has roles of its own.
    unknown = [problem.obj.split(" ")[0] for problem in problems]
    assert unknown == ["ClusterRole", "ClusterRoleBinding"]
    assert [one.data["kind"] for one in good] == ["ServiceAccount", "DaemonSet"]


def test_prometheus_finds_it(objects: dict[str, Any], pod: dict[str, Any]) -> None:
    said = yaml.safe_load((profiles.DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    (job,) = (one for one in said if one["job_name"] == "kproxy-prober")
    (found,) = job["kubernetes_sd_configs"]
    assert objects["DaemonSet"]["metadata"]["namespace"] in found["namespaces"]["names"]
    (keep,) = (one for one in job["relabel_configs"] if one.get("action") == "keep")
    (port,) = pod["spec"]["containers"][0]["ports"]
    values = [FOUND_BY[label](pod, port) for label in keep["source_labels"]]
    assert ";".join(values) == keep["regex"]
    assert objects["DaemonSet"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert str(port["containerPort"]) == prober.ADDRESS.rpartition(":")[2]


def test_it_starts_the_prober_of_its_node(
    pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = pod["spec"]["containers"]
    _python, *module = container["command"][:3]
    assert module == ["-m", prober.__package__]
    (variable,) = container["env"]
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    monkeypatch.setenv(variable["name"], "n1")
    assert prober._options(container["command"][3:]).node == "n1"
    assert not pod["spec"].get("hostNetwork")


def test_it_may_what_a_prober_may(objects: dict[str, Any], pod: dict[str, Any]) -> None:
    account, binding = objects["ServiceAccount"], objects["ClusterRoleBinding"]
    assert pod["spec"]["serviceAccountName"] == account["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["kind"] == account["kind"]
    assert {name: subject[name] for name in ("name", "namespace")} == account["metadata"]
    assert binding["roleRef"]["name"] == objects["ClusterRole"]["metadata"]["name"]
    user = identity.authenticated(identity.PROBER)
    (rule,) = objects["ClusterRole"]["rules"]
    assert rule["apiGroups"] == [""]
    given = {(verb, what) for verb in rule["verbs"] for what in rule["resources"]}
    every = {
        (verb, what)
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete")
        for what in ("services", "pods", "nodes", "endpointslices", "secrets")
        if roles.allowed(user, roles.Attributes(verb=verb, resource=what))
    }
    assert given == every
