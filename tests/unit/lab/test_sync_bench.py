"""The bench of syncs, as far as it needs no kernel: rows, commands, messages."""

import struct
from typing import Any

import msgspec
import pytest

from kproxy.backends.base import SyncResult
from kproxy.errors import UsageError
from kproxy.kernel import netlink
from kproxy.lab import (
    pathbench,
    syncbench,
    syncbench_look,
    syncbench_peers,
    syncbench_program,
    syncbench_replay,
)
from kproxy.lab.benchcluster import Size
from kproxy.lab.syncbench_peers import Peer
from kproxy.lab.syncbench_program import Programming, Step
from kproxy.lab.syncbench_proxy import Observation, ours, parse_command

SIZE = Size(100, 10)


def observation(seconds: float, **more: Any) -> Observation:
    given: dict[str, Any] = {
        "step": "restart",
        "seen": "log",
        "rss_mb": 10.0,
        "cpu_seconds": seconds,
        **more,
    }
    return Observation(seconds=seconds, **given)


def programming(dump: float = 0.5) -> Programming:
    step = Step(seconds=[0.25], writes=3, cpu_seconds=0.125, rss_mb=40.0)
    peers = {
        "cold": [Peer(name="tool", seconds=[1.0, 3.0]), Peer(name="other", seconds=[9.0])],
        "resync": [Peer(name="dump", seconds=[dump])],
    }
    return Programming(list_seconds=2.0, steps={"cold": step, "noop": step}, peers=peers)


def place() -> syncbench._Place:
    return syncbench._Place(proxy="p", mode="ipvs", size=SIZE, kernel="k")


def test_a_row_has_the_medians_and_their_ratio() -> None:
    found = [
        observation(1.0, rss_mb=30.0),
        # Of writes the most is told: a later run that wrote nothing excuses none.
        observation(2.0, writes=4),
        observation(9.0, writes=0),
    ]
    peers = [Peer(name="tool", seconds=[4.0, 5.0, 0.0])]
    (row,) = syncbench._rows(place(), "restart", found, peers)
    assert (row.seconds, row.seconds_min, row.seconds_max, row.n) == (2.0, 1.0, 9.0, 3)
    assert (row.peer, row.peer_seconds, row.ratio) == ("tool", 4.0, 0.5)
    assert (row.rss_mb, row.cpu_seconds, row.writes, row.seen) == (30.0, 2.0, 4, "log")
    wanted = {"mode", "services", "endpoints", "step", "seconds", "peer", "peer_seconds", "ratio"}
    assert wanted | {"rss_mb", "cpu_seconds", "kernel"} <= msgspec.to_builtins(row).keys()


def test_each_peer_has_a_row_and_no_peer_has_one() -> None:
    found = [observation(1.0)]
    peers = [Peer(name="a", seconds=[1.0]), Peer(name="b", seconds=[4.0])]
    rows = list(syncbench._rows(place(), "cold", found, peers))
    assert [(row.peer, row.ratio) for row in rows] == [("a", 1.0), ("b", 0.25)]
    (alone,) = syncbench._rows(place(), "cold", found, [])
    assert (alone.peer, alone.peer_seconds, alone.ratio) == (None, None, None)


def test_a_start_is_compared_with_the_least_that_a_start_must_do() -> None:
    peers = syncbench._Peers()
    peers.add(programming())
    peers.add(programming(dump=1.5))
    peers.interpreters += [0.1, 0.3, 0.2]
    assert [(one.name, one.seconds) for one in peers.of("cold")] == [
        ("tool", [1.0, 3.0, 1.0, 3.0]),
        ("other", [9.0, 9.0]),
    ]
    (restart,) = peers.of("restart")
    assert restart.name == "interpreter start + list and decode + dump"
    assert restart.seconds == pytest.approx([2.7, 3.7])
    assert [one.name for one in peers.of("start")] == [
        "interpreter start + list and decode + tool",
        "interpreter start + list and decode + other",
    ]


def test_what_one_process_measured_becomes_observations() -> None:
    found = syncbench._programmed(programming())
    assert [(one.step, one.seconds, one.writes) for one in found] == [
        ("cold", 0.25, 3),
        ("noop", 0.25, 3),
    ]


def test_a_sync_that_writes_does_not_hide_behind_others() -> None:
    results = [SyncResult(writes=number) for number in (0, 7, 0)]
    calls: list[str] = []

    def sync() -> SyncResult:
        calls.append("sync")
        return results.pop()

    step = syncbench_program._step(sync, 3, before=lambda: calls.append("before"))
    assert (step.writes, len(step.seconds)) == (7, 3)
    assert calls == ["before", "sync"] * 3


def test_the_answer_of_that_process_can_be_read() -> None:
    raw = msgspec.json.encode(programming())
    assert msgspec.json.decode(raw, type=Programming) == programming()


def test_every_step_has_a_place_in_the_table() -> None:
    assert set(syncbench.IDLE_STEPS) < set(syncbench.STEPS)


def test_a_proxy_command_is_filled_in() -> None:
    command = parse_command("/opt/kube-proxy -k={kubeconfig} '-x={mode} {node}' {config}")
    values = {"kubeconfig": "/k", "mode": "ipvs", "node": "n1", "config": "/c"}
    assert command.name == "kube-proxy"
    assert command.argv(**values) == ["/opt/kube-proxy", "-k=/k", "-x=ipvs n1", "/c"]
    assert "--hostname-override n1" in " ".join(ours().argv(**values))


def test_a_stranger_by_our_name_is_told_from_us() -> None:
    assert ours().ours
    assert not parse_command("/other/kproxy proxy").ours


@pytest.mark.parametrize(
    ("text", "named"), [("", "no program"), ("x {nod}", "only {kubeconfig}"), ("x 'y", "x 'y")]
)
def test_a_wrong_proxy_command_is_refused(text: str, named: str) -> None:
    with pytest.raises(UsageError, match="--proxy-command") as caught:
        parse_command(text)
    assert named in str(caught.value)


def message(kind: int, body: bytes = b"", flags: int = 0, sequence: int = 0) -> bytes:
    return netlink.HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body


def test_a_transaction_ends_with_its_generation() -> None:
    rule, end = message(10 << 8 | 6, b"\0" * 20), message(10 << 8 | 15, b"\0" * 8)
    assert not syncbench_look._ends(rule)
    assert syncbench_look._ends(rule + end)


def test_only_the_last_message_of_a_batch_asks_for_an_answer() -> None:
    messages = [message(30, bytes(4), sequence=number) for number in (7, 8, 9)]
    batch, last = syncbench_replay._closed(messages)
    assert last == 9
    asked = []
    for at in range(0, len(batch), 20):
        _length, _kind, flags, sequence, _port = netlink.HEADER.unpack_from(batch, at)
        asked.append((sequence, bool(flags & netlink.NLM_F_ACK)))
    assert asked == [(7, False), (8, False), (9, True)]
    assert messages == [message(30, bytes(4), sequence=number) for number in (7, 8, 9)]


def test_only_a_recorded_device_needs_none() -> None:
    makes = message(16, flags=netlink.NLM_F_CREATE)
    sent = syncbench_replay.Sent(netlink.NETLINK_ROUTE, (message(20), makes))
    assert syncbench_replay._makes_link(sent)
    assert not syncbench_replay._makes_link(
        syncbench_replay.Sent(netlink.NETLINK_ROUTE, (message(16),))
    )
    assert not syncbench_replay._makes_link(
        syncbench_replay.Sent(netlink.NETLINK_NETFILTER, (makes,))
    )


def test_a_listed_map_of_numbers_becomes_one_that_nft_takes() -> None:
    listed = (
        "\tmap endpoints {\n"
        "\t\ttype inet_proto . ipv4_addr . inet_service . mark : ipv4_addr . inet_service\n"
        "\t}\n"
        "\tmap service-ips {\n"
        "\t\ttype inet_proto . ipv4_addr . inet_service : verdict\n"
        "\t}\n"
    )
    assert syncbench_peers.loadable_listing(listed) == listed.replace(
        "type inet_proto . ipv4_addr . inet_service . mark : ipv4_addr . inet_service",
        "typeof meta l4proto . ip daddr . th dport . numgen random mod 2 : ip daddr . th dport",
    )


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert pathbench.percentile(values, 50) == 50.0
    assert pathbench.percentile(values, 99) == 99.0
    assert pathbench.percentile(values, 100) == 100.0
    assert pathbench.percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert pathbench.percentile([3.0], 99) == 3.0


@pytest.mark.parametrize(
    ("protocol", "flags", "is_first"), [(6, 0x02, True), (6, 0x12, False), (17, 0x02, False)]
)
def test_a_first_packet_is_a_syn(protocol: int, flags: int, is_first: bool) -> None:
    ip = struct.pack("!BBHHHBBH8x", 0x46, 0, 44, 0, 0, 64, protocol, 0) + b"\0" * 4
    tcp = struct.pack("!HHIIBBH", 1, 2, 3, 0, 0x50, flags, 0) + b"\0" * 4
    assert pathbench._is_syn(b"\0" * 14 + ip + tcp) is is_first


def test_a_path_row_compares_medians() -> None:
    found = {
        (target, "connect"): [value] * 3
        for target, value in ((pathbench.LAST, 4e-5), (pathbench.NO_PROXY, 2e-5))
    }
    (row,) = pathbench._rows("iptables", SIZE, "k", found)
    assert (row.target, row.n, row.ratio) == (pathbench.LAST, 3, pytest.approx(2.0))
