"""Kinds of packets and of streams, and links that repeat and reorder: all is counted as it is."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import traffic_pair

from kproxy.traffic import crafted, frames, profile, records
from netns.errors import NetnsError
from netns.impairment import Impairment
from netns.lab import Lab

pytestmark = pytest.mark.lab
NETWORK_AT = 14
"""Of a frame: where the network header begins."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with traffic_pair.pair(tmp_path) as found:
        yield found


def sender(lab: Lab) -> frames.Sender:
    return frames.Sender(
        source_mac=str(lab["client"].interface("eth0").mac),
        gateway_mac=str(lab["pod"].interface("eth0").mac),
        addresses=(traffic_pair.CLIENT.ip, traffic_pair.CLIENT6.ip),
    )


def run(lab: Lab, **changes: Any) -> dict[str, Any]:
    generator = traffic_pair.Generator(lab, "udp_send")
    generator.start(traffic_pair.udp_profile(lab, **changes))
    report: dict[str, Any] = generator.answer()["report"]
    return report


@pytest.mark.parametrize(
    "text",
    [
        "IP(dst='192.0.2.2')/TCP(dport=81, flags='S', options=[('MSS', 1460)])",
        "IP(dst='192.0.2.2')/UDP(dport=9)/'and more'",
        "IP(dst='192.0.2.2')/ICMP()",
        "IPv6(dst='2001:db8::2')/ICMPv6EchoRequest()",
        "IPv6(dst='2001:db8::2')/TCP(dport=81, flags='S')",
    ],
)
def test_whatever_is_crafted_is_counted_where_it_arrives(lab: Lab, text: str) -> None:
    flows = frames.crafted(crafted.parse(text), sender(lab), flows=5)
    skip = flows[0].header_at - NETWORK_AT
    _, record = traffic_pair.responder(lab, "--sniff", f"eth0:{skip}")
    assert run(lab, flows=flows, duration_s=0.5)["sent"] == 500
    traffic_pair.settled(record, 500)
    found = traffic_pair.account(lab, record)
    assert found.total("sent") == found.total("received") == 500
    assert found.total("duplicated") == found.strangers == 0


def test_the_kernel_answers_crafted_echoes(lab: Lab) -> None:
    """Their checksums are right, and the answers bring the probes back."""
    flows = frames.crafted(crafted.parse("IP(dst='192.0.2.2')/ICMP()"), sender(lab), flows=2)
    lab["pod"].run(["sysctl", "-w", "net.ipv4.icmp_ratelimit=0"])
    record = lab.scratch / "answers"
    command = ["--name", "back", "--record", str(record), "--sniff", "eth0:28"]
    traffic_pair.Speaker(lab, "client", [*traffic_pair.RESPONDER, *command])
    assert run(lab, flows=flows, rate_pps=500.0, duration_s=0.2)["sent"] == 100
    traffic_pair.settled(record, 100)
    assert {p.flow for p in records.read_received(record, 1)[0]} == {0, 1}


def test_frames_without_a_place_for_a_probe_are_sent_as_they_are(lab: Lab) -> None:
    text = "IP(dst='192.0.2.2')/SCTP(dport=7, sport=8)/SCTPChunkInit()"
    flows = frames.crafted(crafted.parse(text), sender(lab))
    with lab["pod"].entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
    with raw:
        raw.settimeout(10)
        assert run(lab, flows=flows, rate_pps=100.0, duration_s=0.1)["sent"] == 10
        packets = [raw.recv(4096) for _ in range(10)]
    assert {packet[20:] for packet in packets} == {flows[0].frame[NETWORK_AT + 20 :]}


def test_each_packet_may_have_a_source_port_of_its_own(lab: Lab) -> None:
    with lab["pod"].entered():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind(("::", traffic_pair.UDP_PORT))
    with sock:
        sock.settimeout(10)
        for version in (4, 6):
            report = run(lab, version=version, fresh_ports=(20000, 150), duration_s=0.2)
            assert report["sent"] == 200
            ports = [sock.recvfrom(2048)[1][1] for _ in range(200)]
            assert ports == [20000 + k % 150 for k in range(200)]


def test_poisson_packets_leave_when_their_seed_says(lab: Lab) -> None:
    _, record = traffic_pair.responder(lab)
    made = {"distribution": profile.Distribution.POISSON, "seed": 3, "duration_s": 1.0}
    report = run(lab, **made)
    assert report["planned"] == report["sent"] == 1000
    traffic_pair.settled(record, 1000)
    assert traffic_pair.account(lab, record).total("received") == 1000
    sent = records.sent_array(lab.scratch / "sent")
    gaps = sorted((sent["ns"][1:] - sent["ns"][:-1]).tolist())
    # Of an even stream no gap is far from a millisecond; of this one 39 % are below half of it.
    assert 250 < sum(gap < 500_000 for gap in gaps) < 600


def impaired(lab: Lab, impairment: Impairment) -> None:
    try:
        lab["client"].impair("eth0", impairment)
    except NetnsError as error:
        pytest.skip(f"needs netem: {error}")


def test_duplicates_are_counted_as_such(lab: Lab) -> None:
    _, record = traffic_pair.responder(lab)
    impaired(lab, Impairment(duplicate=1.0))
    assert run(lab, duration_s=0.5)["sent"] == 500
    traffic_pair.settled(record, 1000)
    found = traffic_pair.account(lab, record)
    assert found.total("received") == found.total("duplicated") == 500
    assert found.total("lost") == found.total("reordered") == found.strangers == 0


def test_reordering_is_counted_as_such(lab: Lab) -> None:
    """Of each ten packets of a flow nine are delayed and one is not: it overtakes the nine."""
    _, record = traffic_pair.responder(lab)
    impaired(lab, Impairment(delay_s=0.05))
    reorder = ["tc", "qdisc", "change", "dev", "eth0", "root", "netem"]
    lab["client"].run([*reorder, "delay", "50ms", "reorder", "100%", "gap", "10"])
    flows = traffic_pair.udp_profile(lab).flows[:1]
    assert run(lab, flows=flows, duration_s=0.5)["sent"] == 500
    traffic_pair.settled(record, 500)
    found = traffic_pair.account(lab, record, flows=1)
    assert found.total("received") == 500
    assert found.total("lost") == found.total("duplicated") == 0
    arrived = [packet.seq for packet in records.read_received(record, 1)[0]]
    overtaken = sum(seq < max(arrived[:i], default=0) for i, seq in enumerate(arrived))
    assert found.total("reordered") == overtaken
    assert overtaken > 400


def test_a_sniffer_of_an_interface_that_is_not_there_says_so(lab: Lab) -> None:
    command = [*traffic_pair.RESPONDER, "--sniff", "eth7:28"]
    done = lab["pod"].run(command, check=False)
    assert done.returncode == 2
    assert "--sniff eth7:28: No such device" in done.stderr


def test_sctp_is_served_where_the_kernel_has_it(lab: Lab) -> None:
    with lab["client"].entered():
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        except OSError:
            pytest.skip("needs SCTP sockets")
    with sock:
        command = [*traffic_pair.RESPONDER, "--name", "pod-1", "--sctp", "9000"]
        traffic_pair.Speaker(lab, "pod", command)
        sock.settimeout(10)
        sock.connect((str(traffic_pair.POD.ip), 9000))
        sock.send(b"hello\n")
        assert sock.recv(100) == b"pod-1 hello\n"
