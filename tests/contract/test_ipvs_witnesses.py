"""What others read of the IPVS table that was written, and the client of what others wrote."""

import ipaddress
import subprocess

import pytest

from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipvs import client, sockopt
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DestinationConfig,
    DestinationKey,
    Forwarding,
    Operation,
    ServiceConfig,
    ServiceFlags,
    ServiceKey,
    SetDestination,
)


def service(address: str, port: int = 80, protocol: Protocol = Protocol.TCP) -> ServiceKey:
    return ServiceKey(protocol, ipaddress.ip_address(address), port)


def server(address: str, port: int = 8080) -> DestinationKey:
    return DestinationKey(ipaddress.ip_address(address), port)


WEB = service("10.96.0.1")
RR = ServiceConfig("rr")


@pytest.fixture
def kernel_ipvs(request: pytest.FixtureRequest) -> IPVS:
    opened: IPVS = request.getfixturevalue("opened")(IPVS())
    return opened


def do(ipvs: IPVS, *operations: Operation) -> None:
    """Do what must succeed."""
    assert [result for result in ipvs.run(operations) if result is not None] == []


@pytest.mark.kernel
@pytest.mark.needs_tool("ipvsadm")
def test_services_by_firewall_mark_are_left_out(kernel_ipvs: IPVS) -> None:
    subprocess.run(["ipvsadm", "-A", "-f", "7", "-s", "rr"], check=True)
    subprocess.run(["ipvsadm", "-a", "-f", "7", "-r", "10.0.0.1", "-m"], check=True)
    do(kernel_ipvs, AddService(WEB, RR))
    assert set(kernel_ipvs.dump()) == set(kernel_ipvs.traffic()) == {WEB}


@pytest.mark.kernel
@pytest.mark.needs_tool("ipvsadm")
def test_ipvsadm_reads_what_was_written(kernel_ipvs: IPVS) -> None:
    """A witness that shares no code with the client."""
    session = ServiceConfig("wrr", ServiceFlags.PERSISTENT, timeout=10800)
    do(
        kernel_ipvs,
        AddService(service("10.96.0.1", 53, Protocol.UDP), RR),
        AddDestination(
            service("10.96.0.1", 53, Protocol.UDP), server("10.0.0.1", 5353), DestinationConfig(0)
        ),
        AddService(service("fd00:96::1"), session),
        AddDestination(service("fd00:96::1"), server("fd00::1"), DestinationConfig(9)),
        AddDestination(
            service("fd00:96::1"), server("fd00::2"), DestinationConfig(1, Forwarding.DIRECT)
        ),
        SetDestination(service("fd00:96::1"), server("fd00::1"), DestinationConfig(11)),
    )
    told = subprocess.run(["ipvsadm", "-Sn"], check=True, capture_output=True, text=True).stdout
    assert sorted(line.strip() for line in told.splitlines()) == [
        "-A -t [fd00:96::1]:80 -s wrr -p 10800",
        "-A -u 10.96.0.1:53 -s rr",
        "-a -t [fd00:96::1]:80 -r [fd00::1]:8080 -m -w 11",
        "-a -t [fd00:96::1]:80 -r [fd00::2]:8080 -g -w 1",
        "-a -u 10.96.0.1:53 -r 10.0.0.1:5353 -m -w 0",
    ]


@pytest.mark.kernel
def test_pyroute2_reads_what_was_written(kernel_ipvs: IPVS) -> None:
    """A second witness, by its raw attributes: what it lifts out of them is not all there is."""
    pyroute2 = pytest.importorskip("pyroute2")
    flags = ServiceFlags.PERSISTENT | ServiceFlags.SH_PORT
    do(
        kernel_ipvs,
        AddService(WEB, ServiceConfig("sh", flags, timeout=77, netmask=24)),
        AddDestination(WEB, server("10.0.0.1"), DestinationConfig(5)),
    )
    with pyroute2.IPVS() as witness:
        (message,) = witness.service("dump")
        seen = dict(message.get("IPVS_CMD_ATTR_SERVICE")["attrs"])
        wanted = pyroute2.IPVSService(addr="10.96.0.1", port=80, protocol=6)
        (message,) = witness.dest("dump", service=wanted)
        target = dict(message.get("IPVS_CMD_ATTR_DEST")["attrs"])
    assert seen["IPVS_SVC_ATTR_ADDR"] == "10.96.0.1"
    assert (seen["IPVS_SVC_ATTR_PORT"], seen["IPVS_SVC_ATTR_PROTOCOL"]) == (80, 6)
    assert seen["IPVS_SVC_ATTR_SCHED_NAME"] == "sh"
    assert seen["IPVS_SVC_ATTR_TIMEOUT"] == 77
    assert seen["IPVS_SVC_ATTR_NETMASK"] == "255.255.255.0"
    hashed = 0x02
    assert seen["IPVS_SVC_ATTR_FLAGS"]["flags"] == int(flags) | hashed
    assert target["IPVS_DEST_ATTR_ADDR"] == "10.0.0.1"
    assert (target["IPVS_DEST_ATTR_PORT"], target["IPVS_DEST_ATTR_WEIGHT"]) == (8080, 5)
    assert target["IPVS_DEST_ATTR_FWD_METHOD"] == 0


@pytest.mark.kernel
@pytest.mark.needs_tool("ipvsadm")
def test_a_large_table_is_read_as_a_small_one(
    kernel_ipvs: IPVS, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["ipvsadm", "-A", "-f", "7", "-s", "rr"], check=True)
    subprocess.run(["ipvsadm", "-a", "-f", "7", "-r", "10.0.0.1", "-m"], check=True)
    six, empty = service("fd00::1"), service("10.96.0.2")
    udp = service("10.96.0.1", 53, Protocol.UDP)
    masqueraded = DestinationConfig(1, Forwarding.MASQUERADE)
    do(
        kernel_ipvs,
        *(AddService(key, RR) for key in (WEB, udp, empty, six)),
        AddDestination(WEB, server("10.0.0.1"), masqueraded),
        AddDestination(WEB, server("10.0.0.2"), DestinationConfig(0, Forwarding.MASQUERADE)),
        AddDestination(WEB, server("10.0.0.3", 80), DestinationConfig(7, Forwarding.TUNNEL)),
        AddDestination(udp, server("10.0.0.4", 5353), masqueraded),
        AddDestination(six, server("fd00::2"), masqueraded),
    )
    small = kernel_ipvs.dump()
    assert set(small) == {WEB, udp, empty, six}
    monkeypatch.setattr(client, "MANY", 1)
    monkeypatch.setattr(client, "_listing", lambda: pytest.fail("procfs was read"))
    assert kernel_ipvs.dump() == small
    assert kernel_ipvs.dump(Family.IPV4) == {key: small[key] for key in (WEB, udp, empty)}
    monkeypatch.setattr(sockopt, "read", lambda: pytest.fail("IPv4 was read"))
    assert kernel_ipvs.dump(Family.IPV6) == {six: small[six]}
    monkeypatch.undo()
    assert sockopt.read() == {key: small[key].destinations for key in (WEB, udp, empty)}
