"""The exporter of states as a process beside an API server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitored_api import PATIENCE_S, Api, checked_by_promtool, running, serving, started

from kproxy.api import catalog, kinds

KINDS = {
    "nodes",
    "pods",
    "services",
    "endpointslices",
    "daemonsets",
    "deployments",
    "statefulsets",
    "leases",
}
CONDITIONS = [{"type": "Ready", "status": "True"}]
TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "echo"}]},
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path) as made:
        yield made


def fill(api: Api) -> None:
    selector = {"matchLabels": {"a": "b"}}
    api.create(kinds.NODE, "n1", status={"conditions": CONDITIONS})
    api.create(catalog.POD, "p1", spec=TEMPLATE["spec"])
    for kind in (catalog.DAEMON_SET, catalog.DEPLOYMENT, catalog.STATEFUL_SET):
        api.create(kind, "w", spec={"selector": selector, "template": TEMPLATE})
    api.create(kinds.SERVICE, "s", spec={"ports": [{"port": 80}]})
    api.create(
        kinds.ENDPOINT_SLICE,
        "s-1",
        labels={"kubernetes.io/service-name": "s"},
        addressType="IPv4",
        endpoints=[{"addresses": ["10.1.0.2"]}],
        ports=[],
    )
    api.create(catalog.LEASE, "l", spec={"holderIdentity": "me"})


def test_it_follows_what_changes_and_says_how_fresh_that_is(api: Api) -> None:
    fill(api)
    with running("state", f"--kubeconfig={api.kubeconfig}") as state:
        state.until(lambda: state.value("kube_lease_owner", lease_holder="me"))
        ready = {"node": "n1", "condition": "Ready", "status": "true"}
        state.until(lambda: state.value("kube_node_status_condition", **ready) == 1)
        node = api.client.get(kinds.NODE, "", "n1")
        assert node is not None
        api.client.update(kinds.NODE, {**node, "spec": {"unschedulable": True}})
        state.until(lambda: state.value("kube_node_spec_unschedulable", node="n1") == 1)
        api.client.delete(catalog.POD, "default", "p1", grace=0)
        state.until(lambda: state.value("kube_pod_info", pod="p1") is None)
        assert state.text("/readyz") == "ok"
        families = state.families()
        for name in ("last_event_timestamp_seconds", "resource_version", "objects"):
            samples = families[f"kproxy_watch_{name}"].samples
            assert {dict(labels)["resource"] for _, labels in samples} == KINDS
        assert families["rest_client_requests_total"].samples
        code, said = state.end()
    assert code == 0
    assert json.loads(said.splitlines()[-1])["msg"] == "stopped"


def test_without_an_api_it_tells_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    with serving(tmp_path) as gone:
        path = gone.kubeconfig
    with running("state", f"--kubeconfig={path}") as state:
        assert not [name for name in state.families() if name.startswith("kube_")]
        assert state.value("kproxy_watch_last_event_timestamp_seconds", resource="pods") == 0
        with pytest.raises(OSError, match="503"):
            state.text("/readyz")


def test_while_the_api_is_away_it_tells_what_it_knew(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        fill(api)
        with running("state", f"--kubeconfig={api.kubeconfig}") as state:
            state.until(lambda: state.value("kube_lease_owner", lease_holder="me"))
            api.close()
            failed = {"code": "<error>"}
            state.until(lambda: (state.value("rest_client_requests_total", **failed) or 0) > 0)
            assert state.value("kube_lease_owner", lease_holder="me") == 1


@pytest.mark.needs_tool("promtool")
def test_promtool_has_nothing_against_it(api: Api) -> None:
    fill(api)
    with running("state", f"--kubeconfig={api.kubeconfig}") as state:
        state.until(lambda: state.text("/metrics").count("kube_") > 50)
        state.until(lambda: state.value("kube_lease_owner", lease_holder="me"))
        assert checked_by_promtool(state.text()) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no API server: this is no pod (give --kubeconfig=FILE)"),
        (["--kubeconfig=/nonexistent"], "cannot read kubeconfig"),
    ],
)
def test_mistakes_are_told_in_one_line(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with started("state", *options) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert words in said.splitlines()[-1]
    assert "Traceback" not in said
