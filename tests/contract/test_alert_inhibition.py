"""Debian's Alertmanager, with our configuration: which alerts it keeps back because of others."""

import http.client
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing

import alert_rules
import ports
import pytest
import yaml

from kproxy.monitoring import profiles
from kproxy.monitoring.profiles import Profile
from netns.errors import WaitTimeout
from netns.wait import wait_until

pytestmark = pytest.mark.needs_tool("prometheus-alertmanager")
PATIENCE_S = 60.0

Labels = dict[str, str]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run an Alertmanager that tells nobody; give its port."""
    directory = tmp_path_factory.mktemp("alertmanager")
    document = profiles.alertmanager(Profile.PRODUCTION)
    document["receivers"] = [{"name": one["name"]} for one in document["receivers"]]
    (directory / "am.yml").write_text(yaml.safe_dump(document))
    port = ports.unused()
    command = ["prometheus-alertmanager", f"--config.file={directory}/am.yml"]
    command += [f"--storage.path={directory}/am", f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "am.log").open("wb") as log:
        process = subprocess.Popen([*command, "--cluster.listen-address="], stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def ask(port: int, method: str, body: object = None) -> list[dict[str, object]]:
    def answered() -> bytes:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            try:
                headers = {"Content-Type": "application/json"}
                connection.request(method, "/api/v2/alerts", json.dumps(body), headers)
            except ConnectionRefusedError:
                return b""
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read() or b"[]"

    found: list[dict[str, object]] = json.loads(
        wait_until(answered, PATIENCE_S, "Alertmanager to listen", interval=0.05)
    )
    return found


def alert(name: str, **labels: str) -> Labels:
    """Return the labels of an alert as it fires in the rules' tests, with others of its node."""
    return {"alertname": name, **alert_rules.fired(name)[0], **labels}


def expect(port: int, told: list[Labels], kept_back: list[Labels]) -> None:
    """Let alerts fire together; fail if somebody is told of others than these.

    They have a label of their own, so that other tests' alerts say nothing about them. That some
    are kept back, which takes a moment, shows that those that are told have been looked at, too.
    """
    mark = f"test-{time.monotonic_ns()}"
    alerts = [{"labels": {**one, "mark": mark}} for one in (*told, *kept_back)]
    wanted = [*["active"] * len(told), *["suppressed"] * len(kept_back)]
    ask(port, "POST", alerts)
    states: list[str] = []

    def judged() -> bool:
        states[:] = _states(port, alerts)
        return states == wanted

    try:
        wait_until(judged, PATIENCE_S, f"alerts to be {wanted}", interval=0.05)
    except WaitTimeout as error:
        error.add_note(f"{list(zip(alerts, states, strict=True))}")
        raise
    ask(port, "POST", [{**one, "endsAt": "2020-01-01T00:00:00Z"} for one in alerts])


def _states(port: int, alerts: list[dict[str, Labels]]) -> list[str]:
    found = {str(one["labels"]): one["status"]["state"] for one in ask(port, "GET")}
    return [found.get(str(dict(sorted(one["labels"].items()))), "") for one in alerts]


NODE, OTHER_NODE = {"node": "n1"}, {"node": "n2"}
SHOP, OTHER_SHOP = (
    {"namespace": "shop", "service": "web"},
    {"namespace": "shop", "service": "db"},
)


@pytest.mark.parametrize(
    ("worse", "kept_back"),
    [
        ("KproxyProxyUnreachable", "KubeProxyInstanceUnreachable"),
        ("KproxyProxyUnreachable", "KproxyServiceLossOnNode"),
        ("KproxyProxyNotSyncing", "KproxySyncFailing"),
        ("KproxyNodeUnreachable", "KproxyProxyUnreachable"),
        ("KproxyNodeUnreachable", "KproxyNodeNotReady"),
        ("KproxyNodeUnreachable", "KproxyNodeOutOfDate"),
        ("KproxyNodeUnreachable", "KproxyConntrackNearlyFull"),
        ("KproxyNodeUnreachable", "KproxyUDPBlackHole"),
    ],
)
def test_on_the_same_node_only_what_is_worse_is_told(
    port: int, worse: str, kept_back: str
) -> None:
    told = [alert(worse, **NODE), alert(kept_back, **OTHER_NODE)]

    expect(port, told, [alert(kept_back, **NODE)])


@pytest.mark.parametrize("name", ["KproxyServiceLossBudgetBurn", "KproxyUDPBlackHole"])
def test_what_a_service_without_endpoints_loses_is_not_told(port: int, name: str) -> None:
    told = [alert("KproxyServiceWithoutEndpoints", **SHOP), alert(name, **OTHER_SHOP)]

    expect(port, told, [alert(name, **SHOP)])


def test_of_a_budget_that_burns_fast_and_slowly_only_the_fast_is_told(port: int) -> None:
    def burn(severity: str, long: str, labels: Labels) -> Labels:
        return alert("KproxyServiceLossBudgetBurn", severity=severity, long=long, **labels)

    told = [burn("critical", "1h", SHOP), burn("warning", "1d", OTHER_SHOP)]

    expect(port, told, [burn("warning", "1d", SHOP)])


@pytest.mark.parametrize("worse", ["KproxyAPIServerDown", "KproxyStoreWithoutQuorum"])
@pytest.mark.parametrize("kept_back", ["KproxyNoLeader", "KproxyWatchStale"])
def test_nothing_is_recreated_for_want_of_a_store(port: int, worse: str, kept_back: str) -> None:
    expect(port, [alert(worse), alert("KproxyDNSDown")], [alert(kept_back)])


def test_that_all_api_servers_are_down_is_told_once(port: int) -> None:
    def one(job: str) -> Labels:
        return alert("KproxyControlPlaneUnreachable", job=job)

    expect(port, [alert("KproxyAPIServerDown"), one("etcd")], [one("kube-apiserver")])
