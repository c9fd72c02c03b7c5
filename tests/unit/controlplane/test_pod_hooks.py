"""Hooks of containers, and grace periods; on the test's clock."""

import pytest
from kubelet_node import is_ready
from pod_parts import BAD, GOOD, container, node, shown, started

from kproxy.controlplane.actions import Connect, Run, Sleep

__all__ = ["node"]


def hook(kind, **handler):
    return {"lifecycle": {kind: handler}}


def delete_stubborn_with_hook(node, grace):
    """Begin to delete a pod with a preStop hook whose container ignores SIGTERM."""
    node.runtime.stubborn = True
    node.create(
        terminationGracePeriodSeconds=grace,
        containers=[container(**hook("preStop", exec={"command": ["drain"]}))],
    )
    node.turn()
    node.delete()


def test_a_container_is_not_shown_running_before_post_start_is_over(node):
    node.performer.answers = lambda action: None
    first = container("a", **hook("postStart", exec={"command": ["prepare"]}))
    node.create(containers=[first, container("b")])
    node.run(100.0)
    assert started(node) == ["a"]
    assert shown(node, "a") == {"waiting": {"reason": "ContainerCreating"}}
    assert node.status()["phase"] == "Pending"
    node.performer.answers = lambda action: GOOD
    node.turn()
    assert started(node) == ["a", "b"]
    assert is_ready(node.status())


def test_a_failed_post_start_hook_restarts_the_container(node):
    node.performer.answers = lambda action: BAD
    node.create(containers=[container(**hook("postStart", exec={"command": ["prepare"]}))])
    node.run(1.0)
    assert node.runtime.calls.count("signal 15") >= 1
    assert ("FailedPostStartHook", "PostStartHook failed: exit code 1: oh no") in node.pod_events()
    assert node.restarts() >= 1


def test_pre_stop_comes_before_sigterm(node):
    node.performer.answers = lambda action: None
    node.create(containers=[container(**hook("preStop", exec={"command": ["drain"]}))])
    node.turn()
    node.delete()
    node.run(10.0)
    (run,) = node.performer.begun
    assert isinstance(run, Run)
    assert "signal 15" not in node.runtime.calls
    node.performer.answers = lambda action: GOOD
    node.run(11.0)
    assert "signal 15" in node.runtime.calls
    assert node.get() is None


@pytest.mark.parametrize(
    ("handler", "action"),
    [
        ({"sleep": {"seconds": 5}}, Sleep(seconds=5)),
        ({"tcpSocket": {"port": 80}}, Connect(host="10.244.1.2", port=80)),
    ],
)
def test_other_kinds_of_hooks(node, handler, action):
    node.create(containers=[container(**hook("preStop", **handler))])
    node.turn()
    node.delete()
    node.turn()
    assert node.performer.begun == [action]


def test_grace_counts_from_the_beginning_the_hook_included(node):
    node.performer.answers = lambda action: None
    delete_stubborn_with_hook(node, grace=20)
    node.run(5.0)
    node.performer.answers = lambda action: GOOD
    node.turn()
    node.run(19.9)
    assert node.get() is not None
    node.run(20.1)
    assert node.get() is None


def test_a_hook_that_does_not_end_leaves_two_seconds_after_sigterm(node):
    node.performer.answers = lambda action: None
    delete_stubborn_with_hook(node, grace=20)
    node.run(19.9)
    assert "signal 15" not in node.runtime.calls
    node.run(20.1)
    assert "signal 15" in node.runtime.calls
    assert ("FailedPreStopHook", "PreStopHook failed: timed out") in node.pod_events()
    node.run(21.9)
    assert node.get() is not None
    node.run(22.1)
    assert node.get() is None


@pytest.mark.parametrize(("grace", "terminated", "gone"), [(5, 7.0, 9.0), (1, 3.0, 5.0)])
def test_a_second_deletion_shortens_the_time_of_a_hook_too(node, grace, terminated, gone):
    node.performer.answers = lambda action: None
    delete_stubborn_with_hook(node, grace=60)
    node.run(2.0)
    node.delete(grace=grace)
    node.run(terminated - 0.1)
    assert "signal 15" not in node.runtime.calls
    node.run(terminated)
    assert "signal 15" in node.runtime.calls
    node.run(gone - 0.1)
    assert node.get() is not None
    node.run(gone)
    assert node.get() is None


def test_a_pod_whose_status_is_written_meanwhile_is_not_killed_earlier(node):
    node.performer.answers = lambda action: GOOD if node.time >= 20 else None
    delete_stubborn_with_hook(node, grace=20)
    for second in range(22):
        node.run(float(second))
    assert node.get() is not None
    node.run(22.1)
    assert node.get() is None
