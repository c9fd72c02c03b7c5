"""Declared traffic: read, refused with its place, and turned into what generators read."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from kproxy.errors import UsageError
from kproxy.traffic import declared, frames, profile, streams
from kproxy.traffic.declared import Kind, SourcePorts, Traffic

EXAMPLE = """
traffic:
  - kind: udp
    to: 10.96.0.10:5353
    rate: 2000
    distribution: poisson
    seed: 7
    source-ports: fresh
    flows: 4
    payload-bytes: 100
  - kind: udp
    to: '[fd00::10]:53'
    rate: 10.5
  - kind: packet
    packet: IP(dst='10.96.0.10')/TCP(dport=80, flags='S')
    rate: 100
  - {kind: tcp-connections, to: '10.96.0.10:80', rate: 50}
  - {kind: tcp-requests, to: '10.96.0.10:80', rate: 2, connections: 3}
  - {kind: sctp-bulk, to: '10.96.0.10:80', rate: 20, block-bytes: 1000}
"""
SENDER = frames.Sender(
    source_mac="02:00:00:00:00:01",
    gateway_mac="02:00:00:00:00:02",
    addresses=(ip_address("10.0.0.1"),),
)


def test_a_file_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text(EXAMPLE)
    found = declared.read(path)
    assert found[0] == Traffic(
        kind=Kind.UDP,
        rate=2000.0,
        to=ip_address("10.96.0.10"),
        port=5353,
        distribution=profile.Distribution.POISSON,
        seed=7,
        flows=4,
        source_ports=SourcePorts.FRESH,
        payload_bytes=100,
    )
    assert (str(found[1].to), found[1].port) == ("fd00::10", 53)
    assert found[2].packet.startswith("IP(")
    assert [one.kind.protocol for one in found[2:]] == [None, "tcp", "tcp", "sctp"]
    assert (found[4].connections, found[5].block_bytes) == (3, 1000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("traffic: [", "line 1: not YAML"),
        ("- a", "traffic: must be a list"),
        ("traffic: []", "traffic: must be a list"),
        ("traffic: [{}]\nmore: 1", "more: unknown"),
        ("traffic: [5]", r"traffic\[0\]: must be fields"),
        ("traffic: [{}]", r"traffic\[0\]: kind: must be one of udp, packet"),
        ("traffic: [{kind: udp}]", "rate: must be a number per second"),
        ("traffic: [{kind: udp, rate: no}]", "rate: must be a number per second, not False"),
        ("traffic: [{kind: udp, rate: 0}]", "rate: must be from 0.001"),
        (
            "traffic: [{kind: udp, rate: 2000000, distribution: poisson}]",
            "rate: must be from 0.001 to 1,000,000 per second",
        ),
        ("traffic: [{kind: tcp-bulk, rate: 5000}]", "rate: must be from 0.001 to 1,000"),
        ("traffic: [{kind: udp, rate: 1, to: here}]", "to: must be ADDRESS:PORT"),
        ("traffic: [{kind: udp, rate: 1, to: '1.2.3.4'}]", "to: must be ADDRESS:PORT"),
        ("traffic: [{kind: udp, rate: 1, to: '1.2.3.4:0'}]", "to: must end with a port"),
        ("traffic: [{kind: udp, rate: 1, flows: 0}]", "flows: must be a whole number from 1"),
        ("traffic: [{kind: udp, rate: 1, payload-bytes: 31}]", "payload-bytes: .*from 32"),
        ("traffic: [{kind: udp, rate: 1, block-bytes: 9}]", "block-bytes: udp has no such field"),
        ("traffic: [{kind: udp, rate: 1, distribution: even}]", "distribution: must be one of"),
        ("traffic: [{kind: packet, rate: 1}]", "packet: must be a packet"),
        ("traffic: [{kind: udp, rate: 1}, {kind: x}]", r"traffic\[1\]: kind: .*not 'x'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        declared.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        declared.read(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(UsageError, match="not a text file"):
        declared.read(tmp_path / "binary")


def test_packets_become_flows(tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text(EXAMPLE)
    first, second, packet, *_ = declared.read(path)
    made = streams.udp(first, SENDER, interface="e", record=tmp_path / "s", seconds=2.0)
    assert [flow.flow for flow in made.flows] == [0, 1, 2, 3]
    assert (made.distribution, made.seed) == (profile.Distribution.POISSON, 7)
    assert made.fresh_ports == streams.FRESH_PORTS
    assert len(made.flows[0].frame) == 14 + 20 + 8 + 100
    made = streams.udp(packet, SENDER, interface="e", record=tmp_path / "s", seconds=None)
    assert (len(made.flows), made.duration_s) == (16, None)
    with pytest.raises(UsageError, match="fd00::10: the interface has no IPv6 address"):
        streams.udp(second, SENDER, interface="e", record=tmp_path / "s", seconds=1.0)


def test_connections_become_targets(tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text(EXAMPLE)
    *_, fresh, kept, bulk = declared.read(path)
    made = streams.tcp([fresh, kept, bulk], record=tmp_path / "t", seconds=1.0)
    (connects,) = made.connects
    assert (connects.target, connects.rate_per_s) == (0, 50)
    requests, blocks = made.established
    assert (requests.target, requests.connections, requests.interval_s) == (1, 3, 0.5)
    assert requests.bulk_bytes is None
    assert (blocks.target, blocks.bulk_bytes, blocks.protocol) == (2, 1000, "sctp")
    (tmp_path / "p").write_text(made.to_json())
    assert profile.read_tcp(tmp_path / "p") == made
    nowhere = Traffic(kind=Kind.TCP_BULK, rate=1.0)
    with pytest.raises(UsageError, match="tcp-bulk: to: must be given"):
        streams.tcp([nowhere], record=tmp_path / "t", seconds=1.0)
