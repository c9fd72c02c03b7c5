"""Probes of pods: what is asked when, and what follows; on the test's clock."""

import pytest
from kubelet_node import Node, is_ready

from kproxy.controlplane.actions import Check, Connect, Get, Run
from kproxy.controlplane.probesockets import Outcome

GOOD, BAD = Outcome(success=True), Outcome(success=False, message="no")
TCP = {"tcpSocket": {"port": 80}}


@pytest.fixture
def node():
    made = Node()
    yield made
    made.close()


def create(node, *, spec=None, **container):
    body = {"name": "c", "image": "pause", "ports": [{"name": "web", "containerPort": 80}]}
    return node.create(containers=[{**body, **container}], **(spec or {}))


def status(node):
    return node.status()["containerStatuses"][0]


@pytest.mark.parametrize(
    ("handler", "action"),
    [
        ({"tcpSocket": {"port": "web"}}, Connect(host="10.244.1.2", port=80)),
        ({"grpc": {"port": 82}}, Check(host="10.244.1.2", port=82)),
        ({"grpc": {"port": 82, "service": "x"}}, Check(host="10.244.1.2", port=82, service="x")),
        ({"tcpSocket": {"port": 81, "host": "192.0.2.9"}}, Connect(host="192.0.2.9", port=81)),
        (
            {
                "httpGet": {
                    "port": "web",
                    "path": "/x",
                    "scheme": "HTTPS",
                    "httpHeaders": [{"name": "Host", "value": "shop"}],
                }
            },
            Get(host="10.244.1.2", port=80, path="/x", tls=True, headers=(("Host", "shop"),)),
        ),
    ],
)
def test_what_is_asked(node, handler, action):
    create(node, readinessProbe=handler)
    node.turn()
    assert node.performer.begun == [action]


def test_a_command_is_run_where_the_container_runs(node):
    uid = create(node, readinessProbe={"exec": {"command": ["test", "-f", "ok"]}})
    node.turn()
    (run,) = node.performer.begun
    assert isinstance(run, Run)
    assert (run.command, run.sandbox.uid, run.spec.name) == (("test", "-f", "ok"), uid, "c")


def test_without_a_readiness_probe_a_container_is_ready_when_started(node):
    node.runtime.answering = False
    create(node)
    node.turn()
    assert is_ready(node.status())


def test_a_built_in_server_without_probe_is_ready_when_it_listens(node):
    node.runtime.answering = False
    create(node, image="echo")
    node.turn()
    assert not is_ready(node.status())
    node.runtime.answering = True
    node.run(2.0)
    assert is_ready(node.status())


def test_readiness_is_asked_at_once_and_every_period(node):
    node.performer.answers = lambda action: BAD
    create(node, readinessProbe={**TCP, "periodSeconds": 5, "initialDelaySeconds": 3})
    node.turn()
    assert node.performer.begun == []
    node.run(5.0)
    assert len(node.performer.begun) == 1
    assert not is_ready(node.status())
    assert node.status()["phase"] == "Running"
    node.performer.answers = lambda action: GOOD
    node.run(10.0)
    assert is_ready(node.status())
    assert status(node)["ready"]


def test_readiness_is_lost_after_the_failure_threshold_and_nothing_is_restarted(node):
    create(node, readinessProbe={**TCP, "periodSeconds": 1, "failureThreshold": 2})
    node.turn()
    assert is_ready(node.status())
    node.performer.answers = lambda action: BAD
    node.run(1.0)
    assert is_ready(node.status())
    node.run(2.0)
    assert not is_ready(node.status())
    reasons = {one["type"]: one.get("reason") for one in node.status()["conditions"]}
    assert reasons["Ready"] == reasons["ContainersReady"] == "ContainersNotReady"
    assert node.restarts() == 0


def test_a_probe_without_an_answer_has_failed_after_its_timeout(node):
    node.performer.answers = lambda action: None
    create(
        node,
        livenessProbe={**TCP, "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 1},
    )
    node.run(9.9)
    begun = len(node.performer.begun)
    node.run(12.0)
    assert begun == 1
    assert node.restarts() == 1
    events = node.pod_events()
    assert ("Unhealthy", "Liveness probe failed: timed out") in events


def test_liveness_failure_restarts_with_grace(node):
    node.runtime.stubborn = True
    create(
        node,
        livenessProbe={**TCP, "periodSeconds": 1, "failureThreshold": 2},
        spec={"terminationGracePeriodSeconds": 7},
    )
    node.run(1.0)
    node.performer.answers = lambda action: BAD
    node.run(3.0)
    assert node.runtime.calls[-1] == "signal 15"
    assert node.restarts() == 0
    begun = len(node.performer.begun)
    node.run(9.0)
    assert len(node.performer.begun) == begun  # one that is being stopped is left in peace
    node.run(10.5)
    assert "signal 9" in node.runtime.calls
    assert node.restarts() == 1
    last = status(node)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "Error")


def test_a_probe_may_have_a_grace_period_of_its_own(node):
    node.runtime.stubborn = True
    node.performer.answers = lambda action: BAD
    probe = {**TCP, "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 3}
    create(node, livenessProbe=probe, spec={"terminationGracePeriodSeconds": 60})
    node.run(4.5)
    assert node.restarts() == 1


def test_liveness_failure_with_policy_never_fails_the_pod(node):
    node.performer.answers = lambda action: BAD
    create(
        node,
        livenessProbe={**TCP, "periodSeconds": 1, "failureThreshold": 1},
        spec={"restartPolicy": "Never"},
    )
    node.run(5.0)
    assert node.status()["phase"] == "Failed"
    assert status(node)["state"]["terminated"]["exitCode"] == 143


def test_nothing_else_is_asked_before_the_startup_probe_has_succeeded(node):
    asked, times = {81: BAD, 82: GOOD, 83: GOOD}, {81: set(), 82: set(), 83: set()}
    node.performer.answers = lambda action: times[action.port].add(node.time) or asked[action.port]
    create(
        node,
        startupProbe={"tcpSocket": {"port": 81}, "periodSeconds": 1, "failureThreshold": 30},
        livenessProbe={"tcpSocket": {"port": 82}, "periodSeconds": 1},
        readinessProbe={"tcpSocket": {"port": 83}, "periodSeconds": 10},
    )
    node.run(10.0)
    assert {action.port for action in node.performer.begun} == {81}
    assert status(node)["started"] is False
    assert not is_ready(node.status())
    asked[81] = GOOD
    node.run(11.0)
    assert status(node)["started"] is True
    assert is_ready(node.status())  # readiness was asked at once, not ten seconds later
    before = [action.port for action in node.performer.begun].count(81)
    node.run(35.0)
    first, second, third = sorted(times[83])
    assert first == max(times[81])
    assert (second - first, third - second) == pytest.approx((10, 10))  # from the start on
    assert [action.port for action in node.performer.begun].count(81) == before


def test_a_startup_probe_that_fails_too_often_restarts(node):
    node.performer.answers = lambda action: BAD
    create(node, startupProbe={**TCP, "periodSeconds": 1, "failureThreshold": 5})
    node.run(4.0)
    assert node.restarts() == 0
    node.run(6.0)
    assert node.restarts() == 1


def test_readiness_goes_on_during_termination_liveness_does_not(node):
    node.runtime.stubborn = True
    asked = {82: GOOD, 83: GOOD}
    node.performer.answers = lambda action: asked[action.port]
    create(
        node,
        livenessProbe={"tcpSocket": {"port": 82}, "periodSeconds": 1},
        readinessProbe={"tcpSocket": {"port": 83}, "periodSeconds": 1, "failureThreshold": 1},
    )
    node.run(2.0)
    node.delete()
    node.turn()
    assert is_ready(node.status())
    node.performer.begun.clear()
    asked[83] = BAD
    node.run(4.0)
    assert {action.port for action in node.performer.begun} == {83}
    assert not is_ready(node.status())


def test_a_port_that_no_container_has_is_a_failure_with_a_reason(node):
    create(node, readinessProbe={"tcpSocket": {"port": "admin"}, "periodSeconds": 1})
    node.run(1.0)
    assert not is_ready(node.status())
    assert any("no port named 'admin'" in message for _, message in node.pod_events())


def test_the_phases_of_pods_differ_and_are_the_same_in_every_run():
    def first_probes() -> list[float]:
        made = Node()
        try:
            times = []
            made.performer.answers = lambda action: times.append(made.time) or GOOD
            for number in range(5):
                made.create(
                    f"p{number}",
                    containers=[{"name": "c", "image": "pause", "livenessProbe": TCP}],
                )
            made.run(9.99)
            return sorted(set(times))
        finally:
            made.close()

    found = first_probes()
    assert len(found) == 5
    assert all(0 <= time < 10 for time in found)


def test_an_adopted_container_stays_as_ready_as_it_was_reported(node):
    create(node, readinessProbe={**TCP, "periodSeconds": 10, "failureThreshold": 1})
    node.turn()
    assert is_ready(node.status())
    node.performer.answers = lambda action: BAD
    node.boot()
    assert is_ready(node.status())
    node.run(node.time + 10.0)
    assert not is_ready(node.status())


def test_probes_are_counted(node):
    create(node, readinessProbe={**TCP, "periodSeconds": 1, "failureThreshold": 1})
    node.run(3.0)
    node.performer.answers = lambda action: BAD
    node.run(4.0)
    text = node.kubelet.metrics.registry.text()
    line = next(one for one in text.splitlines() if 'result="failed"' in one)
    assert line.startswith('prober_probe_total{probe_type="Readiness",result="failed",')
    assert line.endswith(" 1")


def test_a_liveness_probe_under_way_is_forgotten_when_the_pod_is_deleted(node):
    node.runtime.stubborn = True
    node.performer.answers = lambda action: None
    create(node, livenessProbe={**TCP, "periodSeconds": 10, "timeoutSeconds": 5})
    while not node.performer.begun:
        node.run(node.time + 1.0)
    node.delete()
    node.run(node.time + 8.0)
    assert not any(reason == "Unhealthy" for reason, _ in node.pod_events())
