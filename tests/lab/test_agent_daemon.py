"""The proxy as a process, on a real kernel, with an API server of its own."""

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import agent_node
import pytest
from agent_node import Node, Proxy
from stub_api import service, slice_of

from netns.wait import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
    ]
)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, request.param) as node:
        node.api.put(
            service("web", "10.96.0.10"),
            slice_of("web", "10.128.0.5", "10.128.1.6"),
            service("dns", "10.96.0.11", 53, "UDP"),
            slice_of("dns", "10.128.0.7", port=5353, protocol="UDP"),
            service("none", "10.96.0.12"),
        )
        yield node


def test_a_killed_proxy_finds_its_rules_right(node: Node) -> None:
    first = node.start()
    event = first.wait_for("synced", first=True)
    assert (event["services"], event["endpoints"]) == (3, 3)
    assert event["writes"] > 0
    contents = node.contents()
    assert "10.128.1.6:8080" in contents
    first.end(signal.SIGKILL)
    assert node.contents() == contents
    second = node.start()
    assert second.wait_for("synced", first=True)["writes"] == 0
    assert node.contents() == contents


def test_what_changed_while_it_was_down_is_made_good(node: Node) -> None:
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    proxy.end(signal.SIGKILL)
    node.api.put(slice_of("web", "10.128.0.5", "10.128.1.8"))
    node.api.delete("Service", "dns")
    node.start().wait_for("synced", first=True)
    contents = node.contents()
    assert "10.128.1.8:8080" in contents
    assert "10.128.1.6" not in contents
    assert "10.96.0.11" not in contents


def test_changes_get_into_the_kernel_and_out_again(node: Node) -> None:
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    before = node.contents()
    node.api.put(service("new", "10.96.0.13"), slice_of("new", "10.128.1.9"))
    proxy.wait_for("synced", services=4, endpoints=4)
    assert "10.128.1.9:8080" in node.contents()
    node.api.delete("EndpointSlice", "new-abc")
    node.api.delete("Service", "new")
    proxy.wait_for("synced", services=3)
    assert node.contents() == before


def test_nothing_is_written_before_everything_was_listed(node: Node) -> None:
    empty = node.contents()
    node.api.hold("endpointslices")
    proxy = node.start()
    proxy.wait_for("started")
    # The health check is the only sign of life that comes before the first sync.
    node.await_healthy()
    assert node.contents() == empty
    node.api.release()
    assert proxy.wait_for("synced", first=True)["endpoints"] == 3


def test_health_checks_are_answered_while_the_first_sync_takes_long(
    node: Node, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("iptables-restore", "iptables-legacy-restore", "iptables-nft-restore"):
        stand_in = programs / name
        stand_in.write_text(f'#!/bin/sh\ncat {gate} >&2\nexec {shutil.which(name)} "$@"\n')
        stand_in.chmod(0o755)
    proxy = node.start(programs)
    proxy.wait_for("listed")
    node.await_healthy()
    _open_gate(gate, proxy)
    assert proxy.wait_for("synced")["first"] is True


def test_sigterm_leaves_the_rules(node: Node) -> None:
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    contents = node.contents()
    assert proxy.end(signal.SIGTERM) == 0
    assert node.contents() == contents
    waiting = node.start()
    node.api.hold("services")
    waiting.wait_for("started")
    assert waiting.end(signal.SIGINT) == 0


def test_cleanup_removes_all_of_ours_and_nothing_else(node: Node) -> None:
    node.run("iptables-legacy", "-t", "nat", "-A", "PREROUTING", "-j", "ACCEPT")
    # The tables that the proxy writes, too, be they legacy or nft.
    comment = ("-m", "comment", "--comment", "do not -j KUBE-SERVICES here")
    node.run("iptables-legacy", "-A", "INPUT", *comment, "-j", "ACCEPT")
    node.run("iptables-nft", "-A", "INPUT", *comment, "-j", "ACCEPT", check=False)
    before = node.contents()
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    proxy.end()
    assert node.contents() != before
    assert set(before.splitlines()) <= set(node.contents().splitlines())
    assert node.clean_up() == 0
    assert set(before.splitlines()) <= set(node.contents().splitlines())
    left = [line for line in node.contents().splitlines() if line not in before.splitlines()]
    # What remains are empty built-in chains of tables that did not exist before.
    assert [line for line in left if not line.startswith((":", "*", "COMMIT"))] == []
    assert not [
        line for line in node.contents().splitlines() if line.startswith((":KUBE", "KUBE"))
    ]
    assert node.clean_up() == 0


def test_lost_rules_come_back(node: Node) -> None:
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    contents = node.contents()
    tool = "iptables-legacy" if "KUBE" in node.run("iptables-legacy-save") else "iptables-nft"
    node.change(tool, "-F KUBE-SERVICES", "-F PREROUTING")
    while proxy.wait_for("synced")["writes"] != 2:
        pass
    assert node.contents() == contents


def _open_gate(gate: Path, proxy: Proxy) -> None:
    """Wait for a stand-in to stand at the gate, and let all through from now on."""

    def opened() -> int | None:
        assert proxy.pending("synced") == 0
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads
                raise
            return None

    writer = wait_until(opened, agent_node.PATIENCE_S, "a stand-in at the gate", interval=0.1)
    assert writer is not None
    gate.unlink()
    gate.write_text("")
    os.close(writer)
