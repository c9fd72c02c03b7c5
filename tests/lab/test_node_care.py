"""``kproxy node`` on a real kernel, beside a real proxy: it sees what is wrong, repairs that."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_node
import pytest
from agent_node import Node, Proxy
from stub_api import service, slice_of

from netns.wait import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "conntrack")]

VIP, DNS, HEALTHY, GONE = "10.96.0.10", "10.96.0.53", "10.128.0.7", "10.128.0.8"


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
        "nftables",
    ]
)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, request.param) as node:
        config = json.loads(node.config.read_text())
        for mode in ("iptables", "ipvs", "nftables"):
            config[mode]["syncPeriod"] = "1h"
        config["clientConnection"] = {"kubeconfig": str(node.kubeconfig)}
        node.config.write_text(json.dumps(config))
        node.api.put(
            service("web", VIP),
            slice_of("web", "10.128.0.5", "10.128.1.6"),
            service("dns", DNS, 53, "UDP"),
            slice_of("dns", HEALTHY, port=5353, protocol="UDP"),
        )
        yield node


def started(node: Node) -> Proxy:
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    return proxy


def care(node: Node, *words: str) -> dict[str, Any]:
    text = node.run(sys.executable, "-m", "kproxy", "node", *words, "--json", check=False)
    assert text, words
    found: dict[str, Any] = json.loads(text)
    return found


def damage(node: Node) -> None:
    """Do what a stranger does who flushes what he takes for his own."""
    if node.mode == "ipvs":
        node.run("ipvsadm", "-D", "-t", f"{VIP}:80")
    elif node.mode == "iptables":
        node.run("iptables", "-t", "nat", "-F", "KUBE-SERVICES")
    else:
        node.run("nft", "flush", "chain", "ip", "kube-proxy", "services")


def stopped(proxy: Proxy) -> None:
    proxy.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, proxy.process.pid, os.WSTOPPED | os.WNOWAIT)


def track(node: Node, endpoint: str, source_port: int, vip: str = DNS) -> None:
    node.run(
        *("conntrack", "-I", "-p", "udp", "-t", "600", "-s", "10.128.0.99", "-d", vip),
        *("--sport", str(source_port), "--dport", "53", "-r", endpoint, "-q", "10.128.0.99"),
        *("--reply-port-src", "5353", "--reply-port-dst", str(source_port)),
    )


def tracked(node: Node, endpoint: str, vip: str = DNS) -> bool:
    return f"src={endpoint} " in node.run("conntrack", "-L", "-p", "udp", "-d", vip)


def troubles(found: dict[str, Any]) -> set[str]:
    return {one["what"] for one in found["troubles"]}


def await_health(node: Node) -> None:
    """Wait until metrics are served, too: that begins after the first sync."""
    wait_until(
        lambda: care(node, "look")["sync"]["last_s"] is not None,
        agent_node.PATIENCE_S,
        "the time of the last sync",
        interval=0.1,
    )


def test_a_healthy_node_has_nothing_wrong_and_nothing_is_done(node: Node) -> None:
    proxy = started(node)
    await_health(node)
    found = care(node, "look")
    assert (found["healthy"], found["troubles"], found["unknown"]) == (True, [], {})
    assert found["proxy"]["pid"] == proxy.process.pid
    assert found["proxy"]["writes"]
    assert found["proxy"]["catches_resync"]
    assert found["answers"] == {"healthz": "200", "livez": "200"}
    before = node.contents()
    for word in ("resync", "clean-conntrack"):
        done = care(node, word)
        assert (done["good"], done["found"], done["done"]) == (True, [], [])
    assert node.contents() == before
    assert proxy.process.poll() is None


def test_rules_that_a_stranger_removed_are_back_at_once(node: Node) -> None:
    proxy = started(node)
    await_health(node)
    before = node.contents()
    damage(node)
    found = care(node, "look")
    assert troubles(found) == {"drift"}
    assert found["watch_stale"] is False
    planned = care(node, "resync", "--dry-run")
    assert (planned["good"], planned["refused"]) == (False, "")
    assert planned["found"]
    assert care(node, "look")["drift"] == found["drift"], "a dry run has repaired something"
    done = care(node, "resync")
    assert (done["good"], done["left"]) == (True, [])
    assert node.contents() == before
    assert proxy.process.poll() is None
    assert care(node, "look")["healthy"]


def test_a_stopped_proxy_is_seen_and_not_asked_and_may_be_killed(node: Node) -> None:
    proxy = started(node)
    await_health(node)
    stopped(proxy)
    damage(node)
    found = care(node, "look")
    assert troubles(found) == {"proxy-stopped", "drift"}
    assert found["proxy"]["state"] == "stopped"
    refused = care(node, "resync")
    assert not refused["good"]
    assert "restart it instead" in refused["refused"]
    assert refused["done"] == []
    assert care(node, "restart-proxy", "--dry-run")["found"]
    assert proxy.process.poll() is None
    assert care(node, "restart-proxy")["done"] == [f"SIGKILL to process {proxy.process.pid}"]
    assert proxy.process.wait(agent_node.PATIENCE_S) == -signal.SIGKILL
    absent = care(node, "look", "--config", str(node.config), "--mode", node.mode)
    assert "proxy-absent" in troubles(absent)
    assert care(node, "restart-proxy")["refused"]


def test_only_flows_to_endpoints_that_are_gone_are_forgotten(node: Node) -> None:
    proxy = started(node)
    stopped(proxy)
    track(node, HEALTHY, 4000)
    track(node, GONE, 4001)
    track(node, GONE, 4002, vip="192.0.2.1")
    found = care(node, "look")
    assert found["conntrack"]["stale"] == 1
    assert "flows-stale" in troubles(found)
    planned = care(node, "clean-conntrack", "--dry-run")
    assert (len(planned["found"]), planned["good"]) == (1, False)
    assert tracked(node, GONE)
    done = care(node, "clean-conntrack")
    assert (len(done["done"]), done["left"], done["good"]) == (1, [], True)
    assert not tracked(node, GONE)
    assert tracked(node, HEALTHY)
    assert tracked(node, GONE, vip="192.0.2.1"), "no service of ours: none of our business"
    proxy.process.send_signal(signal.SIGCONT)


def test_weights_are_healed_where_there_are_any(node: Node) -> None:
    proxy = started(node)
    stopped(proxy)
    if node.mode != "ipvs":
        assert "no weights" in care(node, "heal-weights")["refused"]
        return
    for server in ("10.128.0.5:8080", "10.128.1.6:8080"):
        node.run("ipvsadm", "-e", "-t", f"{VIP}:80", "-r", server, "-m", "-w", "0")
    # One of them has left the Service: it drains.
    node.api.put(slice_of("web", "10.128.0.5"))
    assert care(node, "look")["weights"] == {"stuck": 1, "draining": 1}
    assert care(node, "heal-weights", "--dry-run")["found"]
    done = care(node, "heal-weights")
    assert (len(done["done"]), done["left"], done["good"]) == (1, [], True)
    table = node.run("ipvsadm", "-Sn")
    assert "-r 10.128.0.5:8080 -m -w 1" in table
    assert "-r 10.128.1.6:8080 -m -w 0" in table
    proxy.process.send_signal(signal.SIGCONT)


def test_a_proxy_with_a_stuck_watch_syncs_an_old_world_and_that_is_told(node: Node) -> None:
    proxy = started(node)
    await_health(node)
    node.api.mute("endpointslices")
    node.api.put(slice_of("web", "10.128.0.5", "10.128.1.9"))
    found = care(node, "look")
    assert {"drift", "watch-stale"} <= troubles(found)
    assert found["watch_stale"]
    done = care(node, "resync")
    assert not done["good"]
    assert "its watch is stale" in done["refused"]
    assert proxy.process.poll() is None
    assert "10.128.1.9" not in node.contents()
