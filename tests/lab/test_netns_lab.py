"""A topology becomes hosts between which packets pass."""

import asyncio
import dataclasses
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import netns_samples as samples
import pytest

from netns import link, namespace, wait
from netns.errors import CommandFailed, LabBusy, NetnsError, TopologyError
from netns.lab import Lab
from netns.process import Process
from netns.topology import Host, Interface, Link, Route, RouteKind, Segment

pytestmark = pytest.mark.lab

NAME = f"nl{os.getpid()}"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Lab]:
    with Lab(samples.line(), name=NAME, state_dir=tmp_path / "state") as lab:
        yield lab
    assert samples.remains(NAME, tmp_path / "state", NAME) == []


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lab]:
    topology = samples.lan("a", "b", "c")
    with Lab(topology, name=NAME, state_dir=tmp_path / "state") as lab:
        yield lab
    assert samples.remains(NAME, tmp_path / "state", NAME) == []


@pytest.mark.parametrize(
    ("address", "source"),
    [("198.51.100.2", "192.0.2.2"), ("2001:db8:b::2", "2001:db8:a::2")],
)
def test_packets_pass_through_a_router_at_once(line: Lab, address: str, source: str) -> None:
    assert samples.arrives(line["left"], line["right"], address) == source


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_packets_pass_on_a_segment_at_once(lan: Lab, address: str) -> None:
    samples.arrives(lan["a"], lan["b"], address)


def test_nothing_but_the_packet_is_seen(lan: Lab) -> None:
    """No ARP, no neighbour discovery, no flooding: only the peer sees a frame."""
    with lan["b"].call(_packets, "eth0") as peer, lan["c"].call(_packets, "eth0") as bystander:
        samples.arrives(lan["a"], lan["b"], "192.0.2.2")
        assert [frame[-5:] for frame in _received(peer)] == [b"hello"]
        assert _received(bystander) == []


def _received(sock: socket.socket) -> list[bytes]:
    """What has come, without the reports of multicast listeners that follow the start."""
    frames = []
    while True:
        try:
            frames.append(sock.recv(2000, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return [each for each in frames if not each.startswith(b"\x33\x33\0\0\0\x16")]


def _packets(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    sock.bind((interface, 0))
    return sock


def test_checksums_on_the_wire_are_right(line: Lab) -> None:
    with line["router"].call(_packets, "toleft") as wire:
        samples.arrives(line["left"], line["right"], "198.51.100.2", b"even")
        (frame,) = _received(wire)
    segment = frame[34:]
    pseudo = frame[26:34] + struct.pack("!BBH", 0, socket.IPPROTO_UDP, len(segment))
    words = struct.unpack(f"!{(len(pseudo) + len(segment)) // 2}H", pseudo + segment)
    total = sum(words)
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_interfaces_are_as_described(line: Lab) -> None:
    for host in line.topology.hosts:
        for wanted in line.topology.interfaces(host.name):
            with link.netlink(line[host.name].namespace) as ipr:
                (found,) = ipr.get_links(ifname=wanted.name)
                assert found.get("address") == wanted.mac
                assert found.get("mtu") == wanted.mtu
                addresses = {
                    f"{each.get('address')}/{each['prefixlen']}"
                    for each in ipr.get_addr(index=found["index"])
                }
            assert addresses >= {str(address) for address in wanted.addresses}


def test_mtu_is_obeyed(tmp_path: Path) -> None:
    topology = samples.line()
    jumbo = dataclasses.replace(
        topology.links[0],
        a=dataclasses.replace(topology.links[0].a, mtu=9000),
        b=dataclasses.replace(topology.links[0].b, mtu=9000),
    )
    topology = dataclasses.replace(topology, links=(jumbo, topology.links[1]))
    with Lab(topology, name=NAME, state_dir=tmp_path / "state") as lab:
        assert _largest_unfragmented(lab, "192.0.2.1") == 9000 - 28
        assert lab["left"].call(_is_too_long, "192.0.2.1", 9000 - 27)


def _largest_unfragmented(lab: Lab, address: str) -> int:
    size = 9000 - 28  # IPv4 and UDP headers
    with (
        lab["router"].call(samples.udp, address) as inside,
        lab["left"].call(_unfragmented) as out,
    ):
        out.sendto(b"x" * size, (address, samples.PORT))
        return len(inside.recv(65535))


def _unfragmented() -> socket.socket:
    sock = samples.udp("0.0.0.0")
    sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    return sock


def _is_too_long(address: str, size: int) -> bool:
    with _unfragmented() as sock:
        try:
            sock.sendto(b"x" * size, (address, samples.PORT))
        except OSError:
            return True
    return False


def test_settings_are_written(line: Lab) -> None:
    def read(key: str) -> str:
        return Path("/proc/sys/net", key).read_text().strip()

    assert line["router"].call(read, "ipv4/ip_forward") == "1"
    assert line["left"].call(read, "ipv4/ip_forward") == "0"
    assert line["router"].call(read, "ipv4/conf/toleft/log_martians") == "1"
    assert line["left"].call(read, "ipv4/conf/eth0/rp_filter") == "0"


def test_an_unknown_setting_is_named_and_nothing_stays(tmp_path: Path) -> None:
    topology = samples.line()
    wrong = Host(name="wrong", sysctls={"net.ipv4.no_such_thing": "1"})
    topology = dataclasses.replace(topology, hosts=(*topology.hosts, wrong))
    with pytest.raises(NetnsError, match=r"host wrong: sysctls: there is no net\.ipv4\.no_such"):
        Lab(topology, name=NAME, state_dir=tmp_path / "state").__enter__()
    assert samples.remains(NAME, tmp_path / "state", NAME) == []


def test_routes_can_be_changed(line: Lab) -> None:
    lost = Route(to=ip_network("198.51.100.2/32"), kind=RouteKind.UNREACHABLE)
    line["left"].set_route(lost)
    with pytest.raises(OSError, match="route to host"):
        samples.arrives(line["left"], line["right"], "198.51.100.2")
    line["left"].delete_route(lost)
    line["left"].delete_route(lost)
    samples.arrives(line["left"], line["right"], "198.51.100.2")


def test_a_local_route_takes_every_address_in(line: Lab) -> None:
    everything = Route(to=ip_network("198.51.100.128/25"), dev="lo", kind=RouteKind.LOCAL)
    line["right"].set_route(everything)
    samples.arrives(line["left"], line["right"], "198.51.100.200")


def test_run(line: Lab) -> None:
    assert line["left"].run(["cat"], input="text").stdout == "text"
    listed = line["left"].run(["cat", "/proc/net/dev"]).stdout
    assert "eth0" in listed
    with pytest.raises(CommandFailed, match="host left: false: exit status 1"):
        line["left"].run(["false"])
    assert line["left"].run(["false"], check=False).returncode == 1
    with pytest.raises(CommandFailed, match="cannot start no-such-program"):
        line["left"].run(["no-such-program"])


def test_run_gives_up_and_kills_the_children_too(line: Lab) -> None:
    with pytest.raises(CommandFailed, match=r"still running after 0\.2 s"):
        line["left"].run(["sh", "-c", "sleep 600; true"], timeout=0.2, env=samples.mark(NAME))
    assert samples.marked(NAME) == []


def test_spawn_writes_to_files(line: Lab, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for word in ("one", "two"):
        process = line["left"].spawn(["echo", word], stdout=log)
        assert process.wait(10) == 0
    assert log.read_text() == "one\ntwo\n"


def test_processes_are_found(line: Lab) -> None:
    process = line["left"].spawn(["tail", "-f", "/dev/null"])
    assert [each.identity for each in line["left"].processes()] == [process.identity]
    assert line["right"].processes() == []
    assert Process(process.identity).kill()
    assert process.wait(10) == -signal.SIGKILL
    assert line["left"].processes() == []


def test_call_moves_the_calling_thread_only(line: Lab) -> None:
    def place() -> int:
        return Path("/proc/thread-self/ns/net").stat().st_ino

    home = place()
    seen = []
    with line["left"].entered():
        inside = place()
        thread = threading.Thread(target=lambda: seen.append(line["right"].call(place)))
        thread.start()
        thread.join()
        assert place() == inside
    identities = [namespace.identity(line[name].namespace) for name in ("left", "right")]
    assert [each and each[1] for each in identities] == [inside, *seen]
    assert place() == home
    with pytest.raises(ValueError, match="x"):
        line["left"].call(int, "x")
    assert place() == home


def test_pods_come_and_go(line: Lab) -> None:
    before = line["router"].call(socket.if_nameindex)  # a kernel may add tunnels of its own
    for _ in range(3):
        host, cable = samples.pod("pod", "router", "10.0.0.1/32")
        line.add(host, links=[cable])
        assert samples.arrives(line["left"], line["pod"], "10.0.0.1") == "192.0.2.2"
        process = line["pod"].spawn(["tail", "-f", "/dev/null"])
        line.remove("pod")
        assert process.returncode == -signal.SIGKILL
        assert "pod" not in line
        assert not namespace.exists(f"{NAME}-pod")
        assert line["router"].call(socket.if_nameindex) == before
        line.remove("pod")


def test_a_segment_gets_and_loses_a_member(lan: Lab) -> None:
    member = samples.end("d", "eth0", "192.0.2.4/24")
    lan.add(Host(name="d"), segments=[Segment(name="lan", interfaces=(member,))])
    samples.arrives(lan["a"], lan["d"], "192.0.2.4")
    samples.arrives(lan["d"], lan["b"], "192.0.2.2")
    assert "192.0.2.4" in lan["a"].run(["ip", "neigh"]).stdout
    lan.remove("d")
    assert "192.0.2.4" not in lan["a"].run(["ip", "neigh"]).stdout


def test_a_link_between_existing_hosts(line: Lab) -> None:
    short = Link(
        a=samples.end("left", "direct", "203.0.113.1/24"),
        b=samples.end("right", "direct", "203.0.113.2/24"),
    )
    line.add(links=[short])
    assert samples.arrives(line["left"], line["right"], "203.0.113.2") == "203.0.113.1"


def test_a_failed_addition_leaves_nothing(line: Lab) -> None:
    before = line.topology
    host, cable = samples.pod("pod", "router", "10.0.0.1/32")
    wrong = dataclasses.replace(host, sysctls={"net.ipv4.no_such_thing": "1"})
    with pytest.raises(NetnsError, match="no_such_thing"):
        line.add(wrong, links=[cable])
    assert line.topology == before
    line.add(host, links=[cable])
    samples.arrives(line["left"], line["pod"], "10.0.0.1")


def test_an_impossible_addition_is_refused(line: Lab) -> None:
    with pytest.raises(TopologyError, match="host left: name"):
        line.add(Host(name="left"))
    cable = Link(a=Interface(host="left", name="x"), b=Interface(host="nobody", name="x"))
    with pytest.raises(TopologyError, match="no host 'nobody'"):
        line.add(links=[cable])


def test_an_unknown_host_is_an_error(line: Lab) -> None:
    with pytest.raises(NetnsError, match=r"has no host 'middle' \(there are: left, router, right"):
        line.host("middle")


def test_a_second_lab_of_the_same_state_directory_is_refused(line: Lab) -> None:
    with pytest.raises(LabBusy, match=f"process {os.getpid()} runs a lab"):
        Lab(samples.line(), name=NAME, state_dir=line.state_dir).__enter__()
    samples.arrives(line["left"], line["right"], "198.51.100.2")


def test_a_stranger_of_the_same_name_is_spared(tmp_path: Path) -> None:
    namespace.create(f"{NAME}-router")
    try:
        with pytest.raises(NetnsError, match=f"{NAME}-router exists already"):
            Lab(samples.line(), name=NAME, state_dir=tmp_path / "state").__enter__()
        assert namespace.identity(f"{NAME}-router") is not None
    finally:
        namespace.delete(f"{NAME}-router")
    assert samples.remains(NAME, tmp_path / "state", NAME) == []


def test_an_exception_takes_the_lab_away(tmp_path: Path) -> None:
    def fail() -> None:
        with Lab(samples.line(), name=NAME, state_dir=tmp_path / "state") as lab:
            process = lab["left"].spawn(["sh", "-c", "sleep 600 & wait"], env=samples.mark(NAME))
            wait.wait_until(lambda: process.pid in samples.marked(NAME), 10, "its environment")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert samples.remains(NAME, tmp_path / "state", NAME) == []


def test_a_lab_of_an_asynchronous_program(tmp_path: Path) -> None:
    async def main() -> None:
        lab = Lab(samples.line(), name=NAME, state_dir=tmp_path / "state")
        await asyncio.to_thread(lab.__enter__)
        try:
            host, cable = samples.pod("pod", "router", "10.0.0.1/32")
            await asyncio.to_thread(lab.add, host, links=[cable])
        finally:
            await asyncio.to_thread(lab.close)

    asyncio.run(main())
    assert samples.remains(NAME, tmp_path / "state", NAME) == []


def test_ip_netns_sees_the_hosts(line: Lab) -> None:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    names = {row.split()[0] for row in listed.stdout.splitlines()}
    assert names >= {f"{NAME}-left", f"{NAME}-router", f"{NAME}-right"}
    assert str(ip_address("192.0.2.2")) in line["left"].run(["ip", "address"]).stdout
