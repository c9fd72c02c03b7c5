"""Profiles: written, read back, and refused with the field's name."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from kproxy.errors import UsageError
from kproxy.traffic import frames, profile, udp_send, wire


def flow(number: int = 0, *, version: int = 4, payload_bytes: int = 40) -> profile.UdpFlow:
    source, destination = (
        ("10.9.0.1", "10.96.0.10") if version == 4 else ("2001:db8::1", "fd00::2")
    )
    return frames.probe(
        flow=number,
        source_mac="02:00:00:00:00:01",
        gateway_mac="02:00:00:00:00:02",
        source=ip_address(source),
        destination=ip_address(destination),
        source_port=40000 + number,
        destination_port=5353,
        payload_bytes=payload_bytes,
    )


def udp_profile(tmp_path: Path, **changes: Any) -> Path:
    wanted = profile.UdpProfile(
        interface="eth0", rate_pps=1000, flows=(flow(), flow(1)), record=tmp_path / "s"
    )
    value = {**json.loads(wanted.to_json()), **changes}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(value))
    return path


def test_a_udp_profile_comes_back(tmp_path: Path) -> None:
    wanted = profile.UdpProfile(
        interface="eth0",
        rate_pps=2500.5,
        flows=(flow(), flow(1, version=6)),
        record=tmp_path / "s",
        trial=4,
        duration_s=1.5,
        catch_up_packets=7,
        realtime=False,
    )
    (tmp_path / "p").write_text(wanted.to_json())
    assert profile.read_udp(tmp_path / "p") == wanted


def test_a_tcp_profile_comes_back(tmp_path: Path) -> None:
    wanted = profile.TcpProfile(
        record=tmp_path / "t",
        established=(
            profile.Established(
                target=0, address="10.0.0.1", port=80, connections=3, interval_s=0.1
            ),
        ),
        connects=(profile.Connects(target=1, address="fd00::1", port=81, rate_per_s=20),),
        trial=2,
    )
    (tmp_path / "p").write_text(wanted.to_json())
    assert profile.read_tcp(tmp_path / "p") == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_pps": 0}, "rate_pps: must be a number of at least 0.001"),
        ({"rate_pps": "fast"}, "rate_pps: must be a number"),
        ({"interface": ""}, "interface: must be a text"),
        ({"trial": 1.5}, "trial: must be a whole number"),
        ({"flows": []}, "flows: must name at least one flow"),
        ({"flows": [{"flow": 0}]}, r"flows\[0\]: frame: must be a text"),
        ({"format": "kproxy.udp-profile/9"}, "format: is 'kproxy.udp-profile/9', this program"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        profile.read_udp(udp_profile(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"frame": "%%%"},
        {"header_at": 60},
        {"checksum_at": 200},
    ],
)
def test_a_frame_that_does_not_hold_its_header_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    good = json.loads(udp_profile(tmp_path).read_text())["flows"][0]
    with pytest.raises(UsageError, match=r"flows\[0\]"):
        profile.read_udp(udp_profile(tmp_path, flows=[{**good, **changes}]))


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        profile.read_udp(tmp_path / "nowhere")
    (tmp_path / "p").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        profile.read_tcp(tmp_path / "p")


def test_an_ipv4_frame_is_what_it_should_be() -> None:
    made = flow(3)
    packet = Ether(made.frame)
    assert (packet[IP].src, packet[IP].dst) == ("10.9.0.1", "10.96.0.10")
    assert (packet[UDP].sport, packet[UDP].dport, packet[UDP].chksum) == (40003, 5353, 0)
    assert made.header_at == 42
    assert len(made.frame) == 42 + 40
    magic, trial, number, flags, seq, ns = wire.HEADER.unpack_from(made.frame, made.header_at)
    assert (magic, trial, number, flags, seq, ns) == (wire.MAGIC, 0, 3, 0, 0, 0)
    checksum = packet[IP].chksum
    del packet[IP].chksum
    assert Ether(bytes(packet))[IP].chksum == checksum


def test_too_small_payloads_and_mixed_families_are_refused() -> None:
    with pytest.raises(UsageError, match="payload_bytes: 31"):
        flow(payload_bytes=31)
    with pytest.raises(UsageError, match="different families"):
        frames.probe(
            flow=0,
            source_mac="02:00:00:00:00:01",
            gateway_mac="02:00:00:00:00:02",
            source=ip_address("10.0.0.1"),
            destination=ip_address("fd00::1"),
            source_port=1,
            destination_port=2,
        )


@given(
    trial=st.integers(0, 2**32 - 1),
    k=st.integers(0, 2**40),
    ns=st.integers(0, 2**63),
    version=st.sampled_from([4, 6]),
)
def test_patched_frames_stay_right(trial: int, k: int, ns: int, version: int) -> None:
    """Also the checksum of IPv6, which is not computed anew: scapy's own is the judge."""
    made = flow(5, version=version)
    ring = udp_send.Ring((made,), trial)
    wire.STAMP.pack_into(ring.buffer, ring.stamp_at[1], k, ns)
    ring.sum_up(1)
    frame = bytes(ring.buffer[len(made.frame) : 2 * len(made.frame)])
    header = wire.HEADER.unpack_from(frame, made.header_at)
    assert header == (wire.MAGIC, trial, 5, 0, k, ns)
    packet = Ether(frame)
    if version == 4:
        assert packet[UDP].chksum == 0
    else:
        checksum = packet[UDP].chksum
        del packet[UDP].chksum
        assert Ether(bytes(packet))[IPv6].payload.chksum == checksum
