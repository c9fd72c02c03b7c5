"""Cleaning up takes everything of ours from a real kernel, and nothing of anybody else."""

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from fresh_netns import fresh_namespace

from kproxy.agent import cleanup
from kproxy.backends import base
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    NodePorts,
    Prefix,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.logs import Log

pytestmark = [pytest.mark.kernel, pytest.mark.needs_tool("ip", "iptables-nft-save")]

MODES = (
    pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
    "iptables",
    "nftables",
)
PAIRS = tuple(
    pytest.param(
        old,
        new,
        marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set") if "ipvs" in (old, new) else (),
    )
    for old, new in itertools.permutations(base.BACKENDS, 2)
)
READERS = (
    "iptables-legacy-save",
    "iptables-nft-save",
    "ip6tables-legacy-save",
    "ip6tables-nft-save",
    "nft list ruleset",
    "ipset save",
    "ipvsadm -Sn",
    "ip -o addr",
)
TOOLS = ("iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft")
STRANGERS = (
    *(f"{tool} {rule}" for tool in TOOLS for rule in (
        "-t nat -N MINE",
        "-t nat -A PREROUTING -p tcp --dport 7 -j MINE",
        "-t nat -A MINE -j RETURN",
        "-A INPUT -m comment --comment KUBE-SERVICES -p tcp --dport 7 -j DROP",
        "-A FORWARD -p udp --dport 9 -j ACCEPT",
    )),
    "nft add table inet mine",
    "nft add table ip kube-proxy-of-others",
    "nft add chain inet mine input { type filter hook input priority 0 ; }",
    "nft add rule inet mine input tcp dport 7 drop",
    "ipset create MINE hash:ip",
    "ipset add MINE 192.0.2.1",
    "ipvsadm -A -t 192.0.2.1:80 -s wlc",
    "ipvsadm -a -t 192.0.2.1:80 -r 192.0.2.2:80 -m",
    "ip link add mine type dummy",
    "ip addr add 192.0.2.1/32 dev mine",
)  # fmt: skip
ADDRESSES = {
    Family.IPV4: ("10.96.0.10", "203.0.113.5", "203.0.113.7", "192.168.1.1", "10.128.0.0/9"),
    Family.IPV6: ("fd00:96::10", "2001:db8::5", "2001:db8::7", "fd00::1", "fd00:10::/48"),
}
ENDPOINTS = {
    Family.IPV4: ("10.128.0.5", "10.128.1.6"),
    Family.IPV6: ("fd00:10::5", "fd00:10::1:6"),
}


def state(family: Family) -> State:
    """Return a state in which everything is used that a Service can ask for."""
    ip, external, balancer, own, pods = ADDRESSES[family]
    local, remote = (
        Endpoint(address=Address(address), port=8080, local=at == 0)
        for at, address in enumerate(ENDPOINTS[family])
    )
    services = []
    for number, protocol in enumerate((Protocol.TCP, Protocol.UDP)):
        for offset, everything in enumerate((False, True)):
            service = ServicePort(
                name=ServicePortName("demo", f"s{offset}", f"p{number}", protocol),
                cluster_ip=Address(ip),
                port=80 + offset,
                node_port=30080 + offset,
                external_ips=(Address(external),),
                load_balancer_vips=(Address(balancer),),
                source_ranges=(Prefix(f"{own}/{128 if ':' in own else 32}"),),
                affinity_seconds=60 if everything else None,
                external_local=everything,
                health_check_node_port=31000 if everything else 0,
            )
            services.append(
                ServiceState(
                    service=service,
                    cluster=(local, remote),
                    local=(local,) if everything else (),
                    known=(local, remote),
                    anywhere=True,
                )
            )
    none = ServicePort(
        name=ServicePortName("demo", "none", "", Protocol.TCP), cluster_ip=Address(ip), port=9
    )
    services.append(ServiceState(service=none))
    return State(
        family=family,
        services={one.service.name: one for one in services},
        cluster_cidrs=(Prefix(pods),),
        node_ports=NodePorts(addresses=(Address(own),)),
    )


_NUMBER = re.compile(r"^[0-9]+: ")
"""Of a device: one that is made anew has another."""
_EMPTY = ("#", "*", ":", "}", "table ip", "chain ", "type ", "COMMIT")
"""How lines begin that tools leave behind by being used: of tables with built-in chains only."""
_OWNED = (":MINE", ":KUBE", "table ip kube", "table ip6 kube", "chain KUBE")


def contents() -> list[str]:
    """Return all that the kernel holds, without counters and empty tables."""
    found = []
    for reader in READERS:
        program, *arguments = reader.split()
        if shutil.which(program) is None:
            continue
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            told = _NUMBER.sub("", line.split(" [")[0].strip())
            if told and (told.startswith(_OWNED) or not told.startswith(_EMPTY)):
                found.append(f"{reader}: {told}")
    return found


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    with fresh_namespace():
        for command in STRANGERS:
            # What this machine lacks, nobody has used.
            subprocess.run(command.split(), capture_output=True, check=False)
        yield


def sync(mode: str) -> int:
    """Write everything of a mode; return how many objects that were, 0: it cannot be done."""
    writes = 0
    for family in Family:
        backend = base.loader(mode)(family, base.Options())
        try:
            if backend.supported() is None:
                result = backend.sync(state(family))
                assert not result.failures, result.failures
                writes += result.writes
        finally:
            backend.close()
    return writes


@pytest.mark.parametrize("mode", MODES)
def test_strangers_stay_and_all_of_ours_goes(mode: str) -> None:
    before = contents()
    assert sum("MINE" in line or "mine" in line for line in before) > 5
    if not sync(mode):
        pytest.skip(f"needs a kernel that can do mode {mode}")
    assert contents() != before
    done = cleanup.clean_up(Log("test", "error"))
    # Modes ipvs and iptables share names of chains: either cleans up the other's.
    assert sum(one.removed for one in done) > 10
    assert not any(one.failures for one in done)
    assert contents() == before
    assert sum(one.removed for one in cleanup.clean_up(Log("test", "error"))) == 0


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_what_one_mode_has_left_goes_and_the_one_in_use_stays(old: str, new: str) -> None:
    if not sync(new):
        pytest.skip(f"needs a kernel that can do mode {new}")
    as_if_alone = contents()
    cleanup.clean_up(Log("test", "error"))
    if not sync(old):
        pytest.skip(f"needs a kernel that can do mode {old}")
    assert sync(new)
    done = cleanup.clean_up(Log("test", "error"), spared=new)
    assert [one.mode for one in done] == [mode for mode in base.BACKENDS if mode != new]
    assert not any(one.failures for one in done)
    assert _settled(contents()) == _settled(as_if_alone)


def _settled(lines: list[str]) -> list[str]:
    """Return the lines in order, without what is drawn: link-local addresses, seeds of hashes."""
    return sorted(line.split(" initval ")[0] for line in lines if " inet6 fe80:" not in line)
