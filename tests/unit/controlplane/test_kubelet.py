"""The kubelet: start, restart with back-off, stop with grace, adopt, lose; on the test's clock."""

import pytest
from kubelet_node import Node, is_ready


@pytest.fixture
def node():
    made = Node()
    yield made
    made.close()


def test_a_pod_is_started_and_reported(node):
    uid = node.create()
    node.turn()
    status = node.status()
    assert status["phase"] == "Running"
    assert status["podIP"] == "10.244.1.2"
    assert status["podIPs"] == [{"ip": "10.244.1.2"}]
    assert status["hostIP"] == "192.0.2.1"
    assert status["startTime"] == "1970-01-01T00:00:00Z"
    assert is_ready(status)
    assert node.restarts() == 0
    started = node.event("container started")
    assert (started["uid"], started["pod"], started["pid"]) == (uid, "default/a", 1000)
    assert node.events()[:2] == ["sandbox created", "container started"]


def test_nothing_is_written_while_nothing_changes(node):
    node.create()
    node.turn()
    before = node.get()
    node.time = 100.0
    assert node.turn() is None
    assert node.get() == before


def test_pods_of_other_nodes_are_let_alone(node):
    node.create(nodeName="n2")
    node.turn()
    assert node.runtime.calls == []


def test_not_ready_until_the_container_answers(node):
    node.runtime.answering = False
    node.create()
    wait = node.turn()
    assert not is_ready(node.status())
    node.runtime.answering = True
    node.time += wait
    node.turn()
    assert is_ready(node.status())


def test_waiting_for_readiness_becomes_patient(node):
    node.runtime.answering = False
    node.create()
    waits = []
    for _ in range(20):
        waits.append(wait := node.turn())
        node.time += wait
    assert min(waits) >= 0.009
    assert waits[-1] == pytest.approx(1.0)


def test_a_container_that_dies_is_restarted_at_once_then_later_and_later(node):
    node.create()
    node.turn()
    waits = []
    for _ in range(8):
        node.runtime.kill()
        waits.append(wait := node.turn())
        assert node.status()["phase"] == "Running"
        if wait:
            assert node.runtime.running() == []
            assert not is_ready(node.status())
            node.time += wait
            node.turn()
        assert len(node.runtime.running()) == 1
        assert is_ready(node.status())
    assert waits == [None, 10, 20, 40, 80, 160, 300, 300]
    assert node.restarts() == 8


def test_ten_minutes_of_running_reset_the_back_off(node):
    node.create()
    node.turn()
    node.runtime.kill()
    node.turn()
    node.time = 600.0
    node.runtime.kill()
    node.turn()
    assert len(node.runtime.running()) == 1


def test_an_exit_is_logged_with_pid_and_code_and_reported(node):
    uid = node.create()
    node.turn()
    node.runtime.kill(code=-9)
    node.turn()
    exited = node.event("container exited")
    assert (exited["uid"], exited["pid"], exited["code"]) == (uid, 1000, -9)
    last = node.status()["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["signal"]) == (137, 9)
    assert node.event("container started")["pid"] == 1001


def test_deletion_terminates_then_removes_then_confirms(node):
    node.create()
    node.turn()
    node.delete()
    node.turn()
    assert "signal 15" in node.runtime.calls
    node.turn()
    assert node.get() is None
    assert node.runtime.list() == []
    ends = [msg for msg in node.events() if msg in ("container exited", "sandbox removed")]
    assert ends == ["container exited", "sandbox removed"]


def test_a_container_that_ignores_sigterm_is_killed_after_the_grace_period(node):
    node.runtime.stubborn = True
    node.create(terminationGracePeriodSeconds=5)
    node.turn()
    node.delete()
    assert node.turn() == 5
    node.time = 4.0
    assert node.turn() == 1
    assert node.get() is not None
    node.time = 5.0
    node.turn()
    assert node.get() is None
    assert node.runtime.running() == []


def test_a_second_deletion_can_shorten_the_grace_period(node):
    node.runtime.stubborn = True
    node.create()
    node.turn()
    node.delete()
    assert node.turn() == 30
    node.delete(grace=2)
    assert node.turn() == 2


def test_a_terminating_container_is_not_restarted(node):
    node.create()
    node.turn()
    node.delete()
    node.turn()
    node.turn()
    assert node.events().count("container started") == 1


def test_a_pod_deleted_by_force_is_removed_at_once(node):
    node.runtime.stubborn = True
    node.create()
    node.turn()
    node.delete(grace=0)
    node.turn()
    assert node.runtime.list() == []
    assert "signal 15" not in node.runtime.calls


def test_a_recreated_pod_starts_afresh(node):
    first = node.create()
    node.turn()
    for _ in range(3):
        node.runtime.kill()
        node.time += node.turn() or 0
    node.delete(grace=0)
    second = node.create()
    node.turn()
    assert first != second
    assert node.restarts() == 0
    node.runtime.kill()
    node.turn()
    assert [one.uid for one in node.runtime.running()] == [second]


def test_a_sandbox_destroyed_from_outside_fails_the_pod(node):
    uid = node.create()
    node.turn()
    node.runtime.destroy(uid)
    node.turn()
    status = node.status()
    assert (status["phase"], status["reason"]) == ("Failed", "SandboxLost")
    assert not is_ready(status)
    node.time = 1000.0
    node.turn()
    assert node.events().count("container started") == 1
    node.delete()
    node.turn()
    assert node.get() is None


def test_a_lost_pod_is_reported_though_its_remains_cannot_be_removed(node):
    uid = node.create()
    node.turn()
    node.runtime.refuse = {"remove"}
    node.runtime.destroy(uid)
    node.runtime.calls.clear()
    node.kubelet.step()
    assert "remove" in node.runtime.calls
    assert node.kubelet.outbox.flush() is None
    assert node.status()["reason"] == "SandboxLost"


def test_a_lost_pod_is_reported_before_its_remains_are_removed(node, monkeypatch):
    uid = node.create()
    node.turn()
    order = []
    put, remove = node.kubelet.outbox.put, node.runtime.remove
    monkeypatch.setattr(node.kubelet.outbox, "put", lambda r: (order.append("put"), put(r)))
    monkeypatch.setattr(node.runtime, "remove", lambda u: (order.append("remove"), remove(u)))
    node.runtime.destroy(uid)
    node.kubelet.step()
    assert order[:2] == ["put", "remove"]


def test_a_sandbox_that_vanishes_just_after_the_restart_fails_the_pod_too(node):
    uid = node.create()
    node.turn()
    node.runtime.answering = False
    node.runtime.kill()
    node.turn()
    assert len(node.runtime.running()) == 1
    del node.runtime._sandboxes[uid]
    node.time += 0.05
    node.turn()
    node.turn()
    assert node.status()["reason"] == "SandboxLost"
    assert node.runtime.running() == []


def test_a_sandbox_that_cannot_be_made_is_tried_again(node):
    node.runtime.refuse = {"run_sandbox"}
    node.create()
    wait = node.turn()
    assert wait == pytest.approx(0.05)
    assert node.status()["phase"] == "Pending"
    assert "refused" in node.status()["message"]
    node.runtime.refuse = set()
    node.time += wait
    node.turn()
    assert node.status()["phase"] == "Running"
    assert "message" not in node.status()


def test_a_container_that_cannot_be_started_backs_off(node):
    node.runtime.refuse = {"start"}
    node.create()
    assert node.turn() == 10
    (told,) = node.status()["containerStatuses"]
    assert told["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    ended = told["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "refused" in ended["message"]
    node.time += 10
    assert node.turn() == 20


def test_one_pod_that_cannot_run_does_not_stop_the_others(node):
    node.runtime.refuse = {"run_sandbox"}
    node.create("bad")
    node.turn()
    node.runtime.refuse = set()
    node.create("good")
    node.turn()
    assert node.status("good")["phase"] == "Running"


def test_a_new_kubelet_adopts_what_runs(node):
    node.create()
    node.turn()
    node.runtime.kill()
    node.turn()
    (before,) = node.runtime.running()
    node.boot()
    assert node.runtime.running() == [before]
    assert is_ready(node.status())
    assert node.restarts() == 1
    assert node.events().count("container started") == 2


def test_a_new_kubelet_restarts_what_died_meanwhile(node):
    node.create()
    node.turn()
    node.runtime.kill()
    node.runtime.exits()
    node.boot()
    assert len(node.runtime.running()) == 1
    assert node.restarts() == 1


def test_a_new_kubelet_removes_what_was_deleted_meanwhile(node):
    node.create()
    node.turn()
    node.delete(grace=0)
    node.boot()
    assert node.runtime.list() == []
    assert node.runtime.running() == []


def test_a_new_kubelet_finishes_a_deletion(node):
    node.create()
    node.turn()
    node.delete()
    node.boot()
    node.turn()
    assert node.get() is None


def test_a_new_kubelet_fails_pods_whose_sandbox_is_gone(node):
    uid = node.create()
    node.turn()
    node.runtime.destroy(uid)
    node.runtime.exits()
    node.boot()
    assert node.status()["reason"] == "SandboxLost"


def test_a_new_kubelet_lets_failed_pods_rest(node):
    uid = node.create()
    node.turn()
    node.runtime.destroy(uid)
    node.turn()
    node.boot()
    assert node.status()["phase"] == "Failed"
    assert node.runtime.running() == []


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
    ],
)
def test_restart_policies(node, policy, code, phase):
    node.create(restartPolicy=policy)
    node.turn()
    node.runtime.kill(code=code)
    node.turn()
    assert node.status()["phase"] == phase


def test_the_api_server_being_away_does_not_stop_restarts(node):
    node.create()
    node.turn()
    node.kubelet.outbox._cluster = None
    node.runtime.kill()
    node.kubelet.step()
    assert len(node.runtime.running()) == 1


def test_container_gets_command_environment_and_ports(node):
    specs = []
    original = node.runtime.start
    node.runtime.start = lambda box, spec: specs.append(spec) or original(box, spec)
    container = {
        "name": "c",
        "command": ["kproxy", "proxy"],
        "args": ["--x"],
        "env": [{"name": "A", "value": "b"}],
        "ports": [{"containerPort": 53, "protocol": "UDP"}],
    }
    uid = node.create(containers=[container], hostNetwork=True)
    node.turn()
    (spec,) = specs
    assert spec.command == ("kproxy", "proxy", "--x")
    assert dict(spec.env) == {"HOSTNAME": "n1", "NODE_NAME": "n1", "POD_UID": uid, "A": "b"}
    assert spec.ports == (("UDP", 53),)
    assert node.status()["podIP"] == "192.0.2.1"


def test_of_a_pod_that_has_ended_the_sandbox_is_removed_once(node):
    node.create(restartPolicy="Never")
    node.turn()
    node.runtime.kill(code=0)
    node.turn()
    node.turn()
    assert node.runtime.calls.count("remove") == 1
