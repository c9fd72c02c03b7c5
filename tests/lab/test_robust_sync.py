"""What others break is found and mended, and what fails is tried again: on a real kernel."""

import fcntl
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import agent_node
import pytest
from agent_node import Node, Proxy
from stub_api import service, slice_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]

MODES = {
    "iptables": pytest.param("iptables"),
    "ipvs": pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
    "nftables": pytest.param("nftables", marks=pytest.mark.needs_tool("nft")),
}
EVERY_MODE = pytest.mark.parametrize("node", MODES.values(), indirect=True)
MODES_WITH_TOOLS = pytest.mark.parametrize(
    "node", [MODES["iptables"], MODES["ipvs"]], indirect=True
)
"""nftables mode executes no tool: it writes to the kernel itself."""

LOCK_WAIT_S = 5.0


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, request.param) as node:
        node.api.put(
            service("web", "10.96.0.10"),
            slice_of("web", "10.128.0.5", "10.128.1.6"),
            service("dns", "10.96.0.11", 53, "UDP"),
            slice_of("dns", "10.128.0.7", port=5353, protocol="UDP"),
        )
        yield node


def contents(node: Node) -> list[str]:
    """Return what packets meet, without what depends on chance and on how often it was made."""
    lines = [re.sub(r"^\d+: kube", "kube", line) for line in node.contents().splitlines()]
    table = node.run("nft", "-s", "list", "table", "ip", "kube-proxy", check=False)
    sets = re.sub(r" initval \S+", "", node.run("ipset", "save", check=False))
    found = re.split(r"[,{}\n]", f"{table}\n{sets}")
    # A new device draws an address of its own.
    return sorted(line.strip() for line in (*lines, *found) if line.strip() and "fe80" not in line)


def settled(node: Node) -> tuple[Proxy, list[str]]:
    """Start a proxy; return it, and what it has made of the kernel."""
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    while proxy.wait_for("synced")["writes"]:
        pass
    return proxy, contents(node)


def tool(node: Node) -> str:
    return "iptables-legacy" if "KUBE" in node.run("iptables-legacy-save") else "iptables-nft"


def chain(node: Node, table: str, pattern: str) -> str:
    saved = node.run(f"{tool(node)}-save", "-t", table)
    found = re.search(rf"^:({pattern}\S*)", saved, re.MULTILINE)
    assert found
    return found[1]


def flush_services(node: Node) -> None:
    node.run(tool(node), "-t", "nat", "-F", "KUBE-SERVICES")


def flush_endpoint(node: Node) -> None:
    node.run(tool(node), "-t", "nat", "-F", chain(node, "nat", "KUBE-SEP-"))


def unhook(node: Node) -> None:
    node.run(tool(node), "-t", "nat", "-F", "PREROUTING")


def insert_rule(node: Node) -> None:
    node.run(tool(node), "-t", "nat", "-I", "KUBE-SERVICES", "-d", "10.96.0.10", "-j", "RETURN")


def flush_table(node: Node) -> None:
    node.change(tool(node), "-F", "-X")


def delete_virtual_server(node: Node) -> None:
    node.run("ipvsadm", "-D", "-t", "10.96.0.10:80")


def delete_real_server(node: Node) -> None:
    node.run("ipvsadm", "-d", "-t", "10.96.0.10:80", "-r", "10.128.0.5:8080")


def change_weight(node: Node) -> None:
    node.run("ipvsadm", "-e", "-t", "10.96.0.10:80", "-r", "10.128.0.5:8080", "-m", "-w", "7")


def change_scheduler(node: Node) -> None:
    node.run("ipvsadm", "-E", "-u", "10.96.0.11:53", "-s", "lc")


def remove_address(node: Node) -> None:
    node.run("ip", "addr", "del", "10.96.0.10/32", "dev", "kube-ipvs0")


def remove_device(node: Node) -> None:
    node.run("ip", "link", "del", "kube-ipvs0")


def delete_set_entry(node: Node) -> None:
    saved = node.run("ipset", "save", "KUBE-CLUSTER-IP")
    entry = next(line.split()[2] for line in saved.splitlines() if line.startswith("add"))
    node.run("ipset", "del", "KUBE-CLUSTER-IP", entry)


def flush_set(node: Node) -> None:
    node.run("ipset", "flush", "KUBE-CLUSTER-IP")


def nft_delete_table(node: Node) -> None:
    node.run("nft", "delete", "table", "ip", "kube-proxy")


def nft_flush_chain(node: Node) -> None:
    listing = node.run("nft", "list", "chains", "ip")
    hooked = re.search(r"chain (\S+) \{\s*type nat hook prerouting", listing)
    assert hooked
    node.run("nft", "flush", "chain", "ip", "kube-proxy", hooked[1])


def nft_flush_map(node: Node) -> None:
    node.run("nft", "flush", "map", "ip", "kube-proxy", "service-ips")


Damage = Callable[[Node], None]
DAMAGES: dict[str, tuple[Damage, ...]] = {
    "iptables": (flush_services, flush_endpoint, unhook, insert_rule, flush_table),
    "ipvs": (
        *(delete_virtual_server, delete_real_server, change_weight, change_scheduler),
        *(remove_address, remove_device, delete_set_entry, flush_set, flush_services, unhook),
    ),
    "nftables": (nft_delete_table, nft_flush_chain, nft_flush_map),
}


@pytest.mark.parametrize(
    ("node", "damage"),
    [
        pytest.param(mode, damage, id=f"{mode}-{damage.__name__}", marks=MODES[mode].marks)
        for mode, damages in DAMAGES.items()
        for damage in damages
    ],
    indirect=["node"],
)
def test_what_somebody_breaks_is_found_put_back_and_counted(node: Node, damage: Damage) -> None:
    proxy, right = settled(node)
    damage(node)
    repaired = proxy.wait_for("drift repaired")
    assert repaired["objects"] > 0
    assert contents(node) == right
    # Once is enough.
    assert proxy.wait_for("synced")["writes"] == 0
    assert proxy.wait_for("synced")["writes"] == 0
    assert proxy.pending("drift repaired") == 1


@pytest.mark.parametrize("held_s", [3.0, 8.0])
@MODES_WITH_TOOLS
def test_another_program_holds_the_xtables_lock(node: Node, held_s: float, tmp_path: Path) -> None:
    """A tool waits 5 s for it; after that the sync has failed, and is tried again."""
    programs = _programs(tmp_path)
    for name in ("iptables", "ip6tables"):
        for action in ("save", "restore"):
            (programs / f"{name}-{action}").symlink_to(_path(f"{name}-legacy-{action}"))
    with Path("/run/xtables.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        proxy = node.start(programs)
        proxy.wait_for("listed")
        released = threading.Timer(held_s, fcntl.flock, (lock, fcntl.LOCK_UN))
        released.start()
        proxy.wait_for("synced", first=True)
        assert not released.is_alive(), "it has waited"
        released.join()
    assert (proxy.pending("sync failed") > 0) is (held_s > LOCK_WAIT_S)
    # Nothing is missing, and nothing is still to be done.
    assert "10.96.0.10" in node.run("iptables-legacy-save") + node.run(
        "ipset", "save", check=False
    )
    while proxy.wait_for("synced")["writes"]:
        pass


@pytest.mark.parametrize("end", ["exit 1", "kill -9 $$"])
@MODES_WITH_TOOLS
def test_a_tool_that_fails_half_way_is_run_again(node: Node, end: str, tmp_path: Path) -> None:
    reference, right = settled(node)
    reference.end()
    assert node.clean_up() == 0
    fail, programs = tmp_path / "fail", _programs(tmp_path)
    for name in ("iptables-restore", "iptables-legacy-restore", "iptables-nft-restore"):
        stand_in = programs / name
        # It takes a part of its input to its grave, once for every time that the file is made.
        stand_in.write_text(
            f"#!/bin/sh\nif rm {fail} 2> /dev/null; then head -c 100 > /dev/null; {end}; fi\n"
            f'exec {_path(name)} "$@"\n'
        )
        stand_in.chmod(0o755)
    fail.touch()
    proxy = node.start(programs)
    proxy.wait_for("sync failed")
    proxy.wait_for("synced", first=True)
    while proxy.wait_for("synced")["writes"]:
        pass
    assert contents(node) == right
    assert proxy.pending("sync failed") == 1
    # Later on, too, when it has much less to write.
    fail.touch()
    node.api.put(service("new", "10.96.0.13"))
    unhook(node)
    proxy.wait_for("sync failed")
    node.api.delete("Service", "new")
    while contents(node) != right:
        proxy.wait_for("synced")


@EVERY_MODE
def test_a_watch_that_ends_in_the_middle_of_a_line_loses_nothing(node: Node) -> None:
    proxy, _ = settled(node)
    for number in range(3):
        for resource in ("services", "endpointslices"):
            node.api.cut(resource)
        name, address = f"new{number}", f"10.128.1.{number + 20}"
        node.api.put(service(name, f"10.96.0.{number + 20}"), slice_of(name, address))
        while f"{address}" not in "".join(contents(node)):
            proxy.wait_for("synced")
    # What came in pieces is not in the way of what comes whole.
    node.api.delete("Service", "new0")
    while "10.128.1.20" in "".join(contents(node)):
        proxy.wait_for("synced")
    assert proxy.process.poll() is None


def _programs(directory: Path) -> Path:
    programs = directory / "programs"
    programs.mkdir()
    return programs


def _path(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found is not None
    return found
