"""The bench of traffic: how it tells, by each clock."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from kproxy.cli import bench_traffic
from kproxy.cli.kernel_option import KernelChoice
from kproxy.errors import UsageError
from kproxy.lab import trafficbench
from kproxy.traffic import accounting, frames, profile, recordfile, records
from kproxy.traffic.resultset import Cause, Loss
from netns.kernels import base

SPREAD = {"p50": 0.1, "p99": 0.2, "max": 0.3}
REPORT: dict[str, Any] = {
    "planned": 0,
    "offered_pps": 1000.0,
    "achieved_pps": 1000.0,
    "pace": 1.0,
    "failed": {},
    "lateness_ms": SPREAD,
    "timer_error_ms": SPREAD,
    "steal_ms": 0.0,
    "realtime_refused": "",
}


def run(losses: tuple[Loss, ...] = ()) -> trafficbench.Run:
    plan = accounting.Plan(rate_pps=1000.0, flows=16, watched_until_ns=0)
    account = accounting.Accountant(plan).result()
    return trafficbench.Run(report=REPORT, account=account, losses=losses, receiver_drops=0)


OUTCOME = dataclasses.replace(bench_traffic.outcome_of(run()), clock=base.Clock.REAL, seed=None)


def test_in_real_time_a_rate_is_held() -> None:
    assert OUTCOME.text().endswith("the rate is held, nothing is lost\nclock: real")
    failed = dataclasses.replace(OUTCOME, held=False, reason="7 packets were lost")
    assert "NOT held: 7 packets were lost" in failed.text()


def test_in_virtual_time_packets_are_counted() -> None:
    virtual = dataclasses.replace(OUTCOME, clock=base.Clock.VIRTUAL, seed=1, delay_ms=None)
    assert virtual.text().endswith("every packet was counted\nclock: virtual; seed 1")
    failed = dataclasses.replace(virtual, held=False, reason="7 packets were lost")
    assert "NOT every packet was counted: 7 packets were lost" in failed.text()


@pytest.mark.parametrize(("words", "clock"), [([], "real"), (["--clock=virtual"], "virtual")])
def test_it_runs_by_the_clock_that_the_help_says(
    monkeypatch: pytest.MonkeyPatch, words: list[str], clock: str
) -> None:
    given: list[str] = []

    def booted(kernel: KernelChoice, **others: Any) -> None:
        given.append(str(kernel.clock))
        raise SystemExit(0)

    monkeypatch.setattr(bench_traffic, "run_on_kernel", booted)
    runner = CliRunner()
    runner.invoke(bench_traffic.traffic, words)
    assert given == [clock]
    told = " ".join(runner.invoke(bench_traffic.traffic, ["--help"]).output.split())
    assert "every run is the same. [default: real]" in told


@pytest.mark.parametrize("clock", base.Clock)
def test_delays_are_not_told_from_virtual_time(
    monkeypatch: pytest.MonkeyPatch, clock: base.Clock
) -> None:
    monkeypatch.setattr(base, "clock", lambda: clock)
    monkeypatch.setattr(base, "seed", lambda: 5)
    outcome = bench_traffic.outcome_of(run())
    assert (outcome.clock, outcome.seed) == (clock, 5)
    assert (outcome.delay_ms is None) is (clock is base.Clock.VIRTUAL)


def test_what_no_counter_explains_is_told() -> None:
    found = [
        Loss(place="pod1", cause=Cause.RECEIVER, packets=3),
        Loss(place="pod2", cause=Cause.RECEIVER, packets=0),
        Loss(place="node", cause=Cause.LINK, packets=5),
    ]
    said = [(one.place, one.cause, one.packets) for one in trafficbench.explained(9, found)]
    assert said == [
        ("pod1", Cause.RECEIVER, 3),
        ("node", Cause.LINK, 5),
        ("", Cause.UNEXPLAINED, 1),
    ]
    # A counter that counts more than was lost explains no more than was lost.
    assert [one.packets for one in trafficbench.explained(4, found)] == [3, 1]
    assert run(trafficbench.explained(9, found)).unexplained == 1


def test_drops_of_links_are_counted_once() -> None:
    text = "\n".join(
        (
            "Inter-|   Receive                    |  Transmit",
            " face |bytes packets errs drop fifo frame compressed multicast|bytes packets",
            "    lo: 1 1 9 0 9 9 9 9 1 1 9 0 9 9 9 9",
            "  eth0: 1 1 9 2 9 9 9 9 1 1 9 3 9 9 9 9",
        )
    )
    assert trafficbench.dropped(text) == 3


def test_peers_are_told_beside_it() -> None:
    found = dataclasses.replace(
        OUTCOME,
        achieved_pps=150_000.0,
        scapy_sendp_pps=500.0,
        scapy_sendp_list_pps=1000.0,
        limit_pps=200_000.0,
        ratio=300.0,
    )
    assert "500 packets/s with a call for each" in found.text()
    assert "this is 300 times as fast" in found.text()
    assert "200,000 packets/s" in found.text()


def test_only_the_benchs_own_packets_can_be_kept(tmp_path: Path) -> None:
    packet = ["--packet", "IP(dst='10.96.0.10')/UDP()"]
    arguments = ["--packets", str(tmp_path / "p.npz"), *packet]
    result = CliRunner().invoke(bench_traffic.traffic, arguments)
    assert isinstance(result.exception, UsageError)
    assert "--packets: not with --profile or --packet" in str(result.exception)


SECOND = 1_000_000_000


class Clock:
    """A clock that goes on while somebody sleeps; then the last packet arrives, too."""

    def __init__(self, file: recordfile.RecordWriter, last: bytes) -> None:
        self.now = 5 * SECOND
        self._file = file
        self._last = last

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
        if self._last:
            self._file.append(self._last, 1)
        self._last = b""


def test_a_packet_on_its_way_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receivers' files have more records than packets, so they look complete before they are."""
    flows = frames.probes(
        flows=1,
        source_mac="02:00:00:00:00:01",
        gateway_mac="02:00:00:00:00:02",
        source=trafficbench.SERVICE,
        destination=trafficbench.SERVICE,
        destination_port=53,
    )
    sent = recordfile.RecordWriter(
        *(tmp_path / "sent", recordfile.KIND_SENT, records.SPAN.size, 9, "udp_send"),
        table=records.sent_table([0], 1000),
    )
    sent.append(records.SPAN.pack(records.STATUS_SENT, 3, 0, 4 * SECOND), 1)
    paths = [tmp_path / pod for pod in trafficbench.PODS]
    files = [
        recordfile.RecordWriter(
            path, recordfile.KIND_RECEIVED, records.RECEIVED_SIZE, 99, path.name
        )
        for path in paths
    ]
    packets = [
        records.pack_received(records.Received(0, seq, 4 * SECOND, 4 * SECOND, ""))
        for seq in range(3)
    ]
    for file in files:
        file.append(records.section(1, 0, 0), 1)
    files[0].append(b"".join(packets[:2]), 2)
    clock = Clock(files[1], packets[2])
    monkeypatch.setattr(trafficbench, "time", clock)
    bench: Any = trafficbench.Bench.__new__(trafficbench.Bench)
    bench._trial = 0
    bench.lab = SimpleNamespace(scratch=tmp_path)
    monkeypatch.setattr(bench, "_link_drops", dict)
    stopped = {"report": {**REPORT, "planned": 3, "sent": 3}}
    bench._sender = SimpleNamespace(
        tell=lambda do, **fields: None,
        expect=lambda event, timeout: stopped,
    )
    before = iter([(0, 0), (0, 0)])  # the files were empty
    state = trafficbench._state
    monkeypatch.setattr(trafficbench, "_state", lambda path: next(before, None) or state(path))
    wanted = profile.UdpProfile(
        interface="eth0", rate_pps=1.0, flows=flows, record=tmp_path / "sent", duration_s=3.0
    )
    found = bench.stream(wanted, paths)
    assert found.account.total("received") == 3
    assert (found.account.total("lost"), found.losses) == (0, ())


def test_what_a_peer_has_sent_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        recordfile.RecordWriter(
            tmp_path / pod, recordfile.KIND_RECEIVED, records.RECEIVED_SIZE, 99, pod
        )
        for pod in trafficbench.PODS
    ]
    packet = records.pack_received(records.Received(0, 1, 4 * SECOND, 4 * SECOND, ""))
    clock = Clock(files[1], packet)
    monkeypatch.setattr(trafficbench, "time", clock)

    def sending(command: list[str], timeout: float) -> SimpleNamespace:
        files[0].append(2 * packet, 2)
        return SimpleNamespace(stdout='{"sent": 3, "seconds": 2}')

    bench: Any = trafficbench.Bench.__new__(trafficbench.Bench)
    bench.lab = {trafficbench.CLIENT: SimpleNamespace(run=sending)}
    bench.records = [tmp_path / pod for pod in trafficbench.PODS]
    bench._flows = ()
    assert bench.peer("sendmmsg", 2.0) == 1.5
    assert sum(trafficbench._state(path)[0] for path in bench.records) == 3
    assert clock.now - 5 * SECOND < trafficbench.TMAX_NS
