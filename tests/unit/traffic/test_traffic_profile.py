"""Profiles: written, read back, and refused with the field's name."""

import dataclasses
import itertools
import json
import struct
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
from kproxy.traffic import frames, lateness, profile, schedule, slots, wire


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
    number=st.integers(1, 9),
    ns=st.integers(0, 2**63),
    versions=st.lists(st.sampled_from([4, 6]), min_size=1, max_size=4),
    fresh=st.booleans(),
)
def test_laid_frames_are_right(
    trial: int, k: int, number: int, ns: int, versions: list[int], fresh: bool
) -> None:
    """Also the checksum of IPv6, which is not computed anew: scapy's own is the judge."""
    made = tuple(flow(5 + i, version=version) for i, version in enumerate(versions))
    size = slots.slot_size(made)
    found = slots.Slots(memoryview(bytearray(16 * size)), made, trial)
    ports = [50000 + i for i in range(number)]
    given = struct.pack(f"!{number}H", *ports) if fresh else b""
    found.fill(3, k, number, ns, given)
    assert found.statuses(2, number + 2) == [0, *[1] * number, 0]
    for i in range(number):
        seq, which = divmod(k + i, len(made))
        frame = found.frame(3 + i)
        header = wire.HEADER.unpack_from(frame, made[which].header_at)
        assert header == (wire.MAGIC, trial, 5 + which, 0, seq, ns)
        packet = Ether(frame)
        template = Ether(made[which].frame)
        assert packet[UDP].sport == (ports[i] if fresh else template[UDP].sport)
        if versions[which] == 4:
            assert packet[UDP].chksum == 0
        else:
            checksum = packet[UDP].chksum
            del packet[UDP].chksum
            assert Ether(bytes(packet))[IPv6].payload.chksum == checksum


def test_what_the_kernel_did_not_take_can_be_withdrawn() -> None:
    made = (flow(1),)
    found = slots.Slots(memoryview(bytearray(8 * slots.slot_size(made))), made, 1)
    found.fill(0, 0, 5, 1)
    found.withdraw(2, 3)
    assert found.statuses(0, 8) == [1, 1, 0, 0, 0, 0, 0, 0]


def test_checksums_at_different_places_cannot_share_a_ring() -> None:
    one, other = flow(1, version=6), flow(2, version=6)
    other = dataclasses.replace(other, checksum_at=other.header_at - 4)
    with pytest.raises(UsageError, match=r"checksum_at.*profiles of their own"):
        slots.Slots(memoryview(bytearray(8 * 128)), (one, other), 1)


def test_poisson_gaps_are_the_seeds() -> None:
    one, same, other = (schedule.Poisson(1000, 1e6, seed) for seed in (1, 1, 2))
    dues = [one.due(k) for k in range(30_000)]
    assert dues == [same.due(k) for k in range(30_000)]
    assert dues != [other.due(k) for k in range(30_000)]
    assert dues == sorted(dues)
    assert dues[0] == 1000
    mean = (dues[-1] - dues[0]) / (len(dues) - 1)
    assert 950 < mean < 1050  # 1,000 ns; the standard error of so many is 6
    gaps = [b - a for a, b in itertools.pairwise(dues)]
    assert 0.35 < sum(gap > mean for gap in gaps) / len(gaps) < 0.39  # 1/e


def test_what_is_due_by_a_time_agrees_with_when_it_is_due() -> None:
    found = schedule.Poisson(0, 1000.0, 7)
    k = 0
    for now in range(0, 20 * 10**9, 7_777_777):
        number = found.due_by(now)
        assert number >= k
        assert found.due(number) > now
        if number:
            assert found.due(number - 1) <= now
        k = number
    assert 19_000 < k < 21_000


def test_lateness_is_counted_in_little_room() -> None:
    found = lateness.Lateness()
    for late in range(1000, 1_001_000, 1000):
        found.add(late, late, 1)
    found.add(-5, -5, 1)
    assert found.most == 1_000_000
    assert found.percentile(1.0) == 1_000_000
    assert 500_000 <= found.percentile(0.5) <= 510_000
    assert found.percentile(0.0005) == 0
    assert abs(found.beyond(900_000) - 100) <= 16
    assert lateness.Lateness().percentile(0.5) == 0


def test_a_batch_is_as_late_as_its_packets() -> None:
    """A thousand packets, due a microsecond after each other, sent at once."""
    batch, single = lateness.Lateness(), lateness.Lateness()
    batch.add(1_000_000, 1_000, 1000)
    for late in range(1_000, 1_001_000, 1_000):
        single.add(late, late, 1)
    assert batch.most == single.most
    for share in (0.1, 0.5, 0.9):
        wanted = single.percentile(share)
        assert abs(batch.percentile(share) - wanted) < 0.05 * 1_000_000


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("distribution", "even", "distribution: must be one of isochronous, poisson"),
        ("fresh_ports", [60000, 6000], "fresh_ports: must be the lowest port and how many"),
        ("fresh_ports", 5, "fresh_ports: must be the lowest port and how many"),
        ("seed", -1, "seed: must be a number of at least 0"),
    ],
)
def test_fields_of_a_stream_are_checked(
    tmp_path: Path, name: str, value: object, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        profile.read_udp(udp_profile(tmp_path, **{name: value}))


def test_a_stream_comes_back_whole(tmp_path: Path) -> None:
    wanted = profile.UdpProfile(
        interface="eth0",
        rate_pps=10.5,
        flows=(flow(), flow(1, version=6)),
        record=tmp_path / "s",
        distribution=profile.Distribution.POISSON,
        seed=5,
        fresh_ports=(1024, 100),
    )
    (tmp_path / "p").write_text(wanted.to_json())
    assert profile.read_udp(tmp_path / "p") == wanted
