"""Two proxies of one node: one writes, and that changes hands without a gap."""

import contextlib
import signal
from pathlib import Path
from typing import Any

import agent_node
import pytest
from agent_node import Node, Proxy
from handover_nodes import (
    CHECK_EVERY_S,
    CHECKED,
    FLAG,
    METRICS,
    HealthCheck,
    ended,
    events,
    node,
    one_writer,
    synced_to,
)
from stub_api import service, slice_of

from kproxy import costfile, costs
from netns.wait import wait_until

__all__ = ["node"]

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]


PLACES = {costs.START: 0.1, costs.LIST: 0.05, costs.SYNC_ADOPT: 0.2, costs.SYNC_PARTIAL: 0.02}
"""What takes time in reality, in seconds: without it all would happen at once in virtual time."""


def slow(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = tuple(
        costfile.Entry(
            process=costs.PROXY,
            place=place,
            mode="",
            seconds=costfile.Terms(constant=seconds),
            kernel="none",
            machine="none",
            date="2026-01-02",
        )
        for place, seconds in PLACES.items()
    )
    path = directory / "model.json"
    path.write_bytes(costfile.encode(costfile.Model(name="test", entries=entries)))
    monkeypatch.setenv(costs.VARIABLE, str(path))


def test_a_planned_restart_leaves_no_moment_without_a_proxy(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(tmp_path, monkeypatch)
    ends: dict[Proxy, int] = {}
    node.api.put(*_checked_service())
    old = node.start(None, FLAG)
    old.wait_for("synced", first=True)
    checks = [
        HealthCheck(node),
        HealthCheck(node, METRICS, "/metrics"),
        HealthCheck(node, CHECKED, "/"),
    ]
    for check in checks:
        check.until_answered()
    contents = node.contents()
    with contextlib.ExitStack() as stack:
        for check in checks:
            stack.enter_context(check)
        for number in range(3):
            # While it changes hands the world goes on.
            new = node.start(None, FLAG, pod=f"p{number}")
            new.wait_for("standby")
            node.api.put(slice_of("web", "10.128.0.5", f"10.128.1.{number + 7}"))
            first = new.wait_for("synced", first=True)
            ends[old] = ended(old)
            assert events(old)[-1]["msg"] == "stopped"
            gone, taken = _one(old, "released"), _one(new, "holding")
            assert taken["how"] == "handed over"
            assert gone["mono_ns"] <= taken["mono_ns"] <= first["mono_ns"]
            synced_to(new, node, f"10.128.1.{number + 7}:8080")
            old = new
    assert checks[0].asked > 3 * PLACES[costs.SYNC_ADOPT] / CHECK_EVERY_S / 2
    assert [check.failed for check in checks] == [[], [], []]
    node.api.put(slice_of("web", "10.128.0.5", "10.128.1.6"))
    while node.contents() != contents:
        old.wait_for("synced")
    ends[old] = ended(old, signal.SIGTERM)
    one_writer(ends)


def test_without_the_flag_the_second_waits_for_the_end_of_the_first(node: Node) -> None:
    first = node.start()
    first.wait_for("synced", first=True)
    second = node.start()
    assert second.wait_for("standby")["reserve"] is True
    node.api.put(slice_of("web", "10.128.1.7"))
    while not first.wait_for("synced")["writes"]:
        pass  # one that it does now and then
    assert second.pending("synced") == 0
    ends = {first: ended(first, signal.SIGKILL)}
    assert second.wait_for("holding")["how"] == "holder has gone"
    assert second.wait_for("synced", first=True)["writes"] == 0
    node.await_healthy()
    ends[second] = ended(second, signal.SIGTERM)
    one_writer(ends)


def test_a_holder_that_is_told_to_stop_hands_over_to_who_waits(node: Node) -> None:
    first = node.start()
    first.wait_for("synced", first=True)
    node.await_healthy()
    second = node.start()
    second.wait_for("standby")
    with HealthCheck(node) as check:
        ends = {first: ended(first, signal.SIGTERM)}
        assert second.wait_for("holding")["how"] == "handed over"
        second.wait_for("synced", first=True)
        check.await_more(5)
    assert check.failed == []
    ends[second] = ended(second, signal.SIGTERM)
    one_writer(ends)


def test_the_pod_that_handed_over_does_not_ask_for_it_again(node: Node) -> None:
    old = node.start(None, FLAG, pod="old")
    old.wait_for("synced", first=True)
    new = node.start(None, FLAG, pod="new")
    new.wait_for("synced", first=True)
    ended(old)
    restarted = node.start(None, FLAG, pod="old")
    restarted.wait_for("standby")
    node.api.put(slice_of("web", "10.128.1.7"))
    synced_to(new, node, "10.128.1.7:8080")
    assert restarted.pending("holding") == 0
    new.end(signal.SIGKILL)
    restarted.wait_for("holding")
    restarted.wait_for("synced", first=True)


def test_of_two_standbys_one_takes_over_and_the_other_after_it(node: Node) -> None:
    old = node.start(None, FLAG)
    old.wait_for("synced", first=True)
    node.api.hold("services")
    both = [node.start(None, FLAG), node.start(None, FLAG)]
    for one in both:
        one.wait_for("another proxy writes")
    node.api.release()
    ends = {old: ended(old)}
    # The other one has found out that it was too late, whoever it is.
    wait_until(
        lambda: all(one.pending("synced") or _reserve(one) for one in both),
        agent_node.PATIENCE_S,
        "both to know",
        interval=CHECK_EVERY_S,
    )
    winner, loser = sorted(both, key=lambda one: one.pending("synced"), reverse=True)
    assert loser.pending("holding") == 0
    ends[winner] = ended(winner, signal.SIGKILL)
    loser.wait_for("holding")
    loser.wait_for("synced", first=True)
    ends[loser] = ended(loser, signal.SIGTERM)
    one_writer(ends)


def test_a_stuck_holder_is_waited_for(node: Node) -> None:
    holder = node.start(None, FLAG)
    holder.wait_for("synced", first=True)
    holder.process.send_signal(signal.SIGSTOP)
    standby = node.start(None, FLAG)
    standby.wait_for("the holder of the lock does not answer: waiting on")
    assert standby.pending("holding") == 0
    holder.process.send_signal(signal.SIGCONT)
    standby.wait_for("synced", first=True)
    one_writer({holder: ended(holder), standby: ended(standby, signal.SIGTERM)})


def _checked_service() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a Service that load balancers ask this node for, and its endpoint here."""
    balanced, local = service("lb", "10.96.0.14"), slice_of("lb", "10.128.0.9")
    balanced["spec"] |= {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": CHECKED,
    }
    local["endpoints"][0]["nodeName"] = "node1"
    return balanced, local


def _one(proxy: Proxy, msg: str) -> dict[str, Any]:
    (event,) = [event for event in events(proxy) if event["msg"] == msg]
    return event


def _reserve(proxy: Proxy) -> bool:
    return any(event["msg"] == "standby" and event["reserve"] for event in events(proxy))
