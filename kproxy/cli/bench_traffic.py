"""``kproxy bench traffic``: which rate this machine can offer and count without losing a packet.

One client sends through a node with an IPVS virtual server to two pods; every packet is counted.
A comparison is worth nothing at a rate at which the generator or the receivers fail by themselves.
"""

import dataclasses
import json
import math
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import click

from kproxy.cli.kernel_option import KernelChoice, lab_options, run_on_kernel
from kproxy.errors import KernelError, MeasurementError, UsageError
from netns.kernels import base

SERVICE = IPv4Address("10.96.0.10")
PORT = 5353
PODS = ("pod1", "pod2")
FLOWS = 16
TMAX_NS = 2_000_000_000
#: A sender slower than this share of the rate has not held it.
LEAST_SHARE = 0.99
#: So many packets are accounted for at a time; a multiple of the flows.
PART = 16 * 10_000
#: Seconds of CPU time that counting may take: at least, and for each packet; generously.
LEAST_COUNTING, COUNTING = 60.0, 0.0002


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was offered, sent and counted. ``held``: the rate was offered and nothing was lost.

    Under the virtual clock packets cost the data path no time: ``delay_ms`` is None.
    """

    clock: base.Clock
    seed: int | None
    offered_pps: float
    achieved_pps: float
    sent: int
    received: int
    lost: int
    held: bool
    duplicated: int
    not_sent: int
    failed: int
    receiver_drops: int
    lateness_ms: dict[str, float]
    delay_ms: dict[str, float] | None
    reason: str

    def text(self) -> str:
        """Return it in words."""
        late = self.lateness_ms
        if self.clock is base.Clock.VIRTUAL:  # every rate can be held there
            good, bad = "every packet was counted", "NOT every packet was counted"
        else:
            good, bad = "the rate is held, nothing is lost", "NOT held"
        seed = "" if self.seed is None else f"; seed {self.seed}"
        return (
            f"offered {self.offered_pps:,.0f} packets/s, sent {self.achieved_pps:,.0f} packets/s: "
            f"{self.sent:,} sent, {self.received:,} received, {self.lost:,} lost\n"
            f"lateness of sending p50 {late['p50']:.3f} ms, p99 {late['p99']:.3f} ms, "
            f"max {late['max']:.3f} ms\n"
            f"{good if self.held else f'{bad}: {self.reason}'}\n"
            f"clock: {self.clock}{seed}"
        )


@click.command()
@click.option(
    "--rate", type=click.FloatRange(1, 10_000_000), default=20000, show_default=True,
    help="Packets per second, all flows together.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.1, 600), default=5, show_default=True,
    help="How long to send.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@lab_options
def traffic(rate: float, seconds: float, as_json: bool, kernel: KernelChoice) -> int:
    """Send UDP through IPVS at a rate, and count every packet.

    In real time, unless --clock says otherwise: in virtual time every rate can be held, and
    what is shown is how exact the sender is and that every packet is counted. Exit code 1 if the
    rate could not be held or a packet was lost.
    """
    if not math.isfinite(rate) or not math.isfinite(seconds):
        raise UsageError("--rate and --seconds must be numbers", remedy="for example --rate 20000")
    run_on_kernel(dataclasses.replace(kernel, clock=kernel.clock or base.Clock.REAL))
    outcome = measure(rate, seconds)
    click.echo(json.dumps(asdict(outcome)) if as_json else outcome.text())
    return 0 if outcome.held else 1


def measure(rate: float, seconds: float) -> Outcome:
    """Lay a small lab, send, count, take the lab away."""
    from netns import lab as netns_lab

    with netns_lab.signals_unwind(), netns_lab.Lab(_topology(), name="kproxy-bench") as lab:
        lab["node"].call(_virtual_server)
        receivers = [_responder(lab, pod, rate, seconds) for pod in PODS]
        report = _send(lab, rate, seconds)
        return _account(receivers, lab.scratch / "sent", report)


def _topology() -> Any:
    from netns.topology import (
        Host,
        Interface,
        Link,
        Route,
        RouteKind,
        Topology,
    )

    def link(number: int, host: str) -> Any:
        network = f"10.250.{number}"
        way = Route(to=ip_network("0.0.0.0/0"), via=IPv4Address(f"{network}.1"))
        return Link(
            a=Interface(host="node", name=host, addresses=(ip_interface(f"{network}.1/24"),)),
            b=Interface(
                host=host, name="eth0", addresses=(ip_interface(f"{network}.2/24"),), routes=(way,)
            ),
        )

    service = Route(to=ip_network(SERVICE), dev="lo", kind=RouteKind.LOCAL)
    hosts = ("client", *PODS)
    return Topology(
        hosts=(
            Host(name="node", sysctls={"net.ipv4.ip_forward": "1"}, routes=(service,)),
            *(Host(name=name) for name in hosts),
        ),
        links=tuple(link(number, host) for number, host in enumerate(hosts)),
    )


def _virtual_server() -> None:
    from kproxy.kernel import inet
    from kproxy.kernel.ipvs import client, types

    key = types.ServiceKey(inet.Protocol.UDP, SERVICE, PORT)
    operations: list[types.Operation] = [types.AddService(key, types.ServiceConfig())]
    for number in range(1, len(PODS) + 1):
        server = types.DestinationKey(IPv4Address(f"10.250.{number}.2"), PORT)
        operations.append(types.AddDestination(key, server, types.DestinationConfig()))
    with client.IPVS() as ipvs:
        refused = [error for error in ipvs.run(operations) if error is not None]
    if refused:
        raise refused[0] if isinstance(refused[0], KernelError) else AssertionError(refused)


def _responder(lab: Any, pod: str, rate: float, seconds: float) -> Path:
    """Start a pod's responder, wait until it listens; returns its record file."""
    record = Path(lab.scratch / pod)
    command = [sys.executable, "-m", "kproxy.traffic.responder", "--udp", str(PORT)]
    command += ["--name", pod, "--record", str(record), "--rate", str(int(rate) or 1)]
    command += ["--capacity", str(int(rate * (seconds + 2)) + 1000)]
    process = lab[pod].spawn(command, stdout=subprocess.PIPE)
    with process.popen.stdout as said:
        ready = said.readline()
    if b"ready" not in ready:
        raise MeasurementError(f"the responder of {pod} did not start")
    return record


def _send(lab: Any, rate: float, seconds: float) -> dict[str, Any]:
    from kproxy.traffic import frames, profile

    wanted = profile.UdpProfile(
        interface="eth0",
        rate_pps=rate,
        duration_s=seconds,
        record=lab.scratch / "sent",
        capacity=int(rate * seconds) + 1000,
        trial=1,
        flows=frames.probes(
            flows=FLOWS,
            source_mac=lab["client"].interface("eth0").mac,
            gateway_mac=lab["node"].interface("client").mac,
            source=IPv4Address("10.250.0.2"),
            destination=SERVICE,
            destination_port=PORT,
        ),
    )
    path = lab.scratch / "profile.json"
    path.write_text(wanted.to_json())
    command = [sys.executable, "-m", "kproxy.traffic.udp_send", "--once", str(path)]
    done = lab["client"].run(command, timeout=10 * seconds + 60)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["report"]
    return report


@dataclass(slots=True)
class _Counts:
    """Sums over the parts of a run. ``delays`` counts microseconds."""

    sent: int = 0
    received: int = 0
    lost: int = 0
    duplicated: int = 0
    not_sent: int = 0
    failed: int = 0
    discarded: int = 0
    strangers: int = 0
    drops: int = 0
    delays: Counter[int] = dataclasses.field(default_factory=Counter)

    def percentiles(self) -> dict[str, float]:
        """Return the delays that are reported."""
        wanted = (("p50", 50), ("p99", 99), ("max", 100))
        return {name: self.percentile(percent) for name, percent in wanted}

    def percentile(self, percent: float) -> float:
        """Return a delay in milliseconds (nearest rank); 0 if nothing arrived."""
        left = max(1, math.ceil(percent / 100 * self.delays.total()))
        for delay, number in sorted(self.delays.items()):
            left -= number
            if left <= 0:
                return delay / 1000
        return 0.0


def _account(paths: list[Path], sent_path: Path, report: dict[str, Any]) -> Outcome:
    # What is still on its way after Tmax is lost by definition.
    time.sleep(TMAX_NS / 1e9)
    until = time.monotonic_ns()
    counts = _Counts()
    with base.computing(LEAST_COUNTING + report["planned"] * COUNTING):
        for start in range(0, report["planned"], PART):
            _count_part(counts, paths, sent_path, start, report["offered_pps"], until)
    reason = _why_not(counts, report)
    return Outcome(
        clock=base.clock(),
        seed=base.seed(),
        offered_pps=report["offered_pps"],
        achieved_pps=round(report["achieved_pps"], 1),
        sent=counts.sent,
        received=counts.received,
        lost=counts.lost,
        held=not reason,
        duplicated=counts.duplicated,
        not_sent=counts.not_sent,
        failed=counts.failed,
        receiver_drops=counts.drops,
        lateness_ms={name: round(value, 3) for name, value in report["lateness_ms"].items()},
        delay_ms=None if base.clock() is base.Clock.VIRTUAL else counts.percentiles(),
        reason=reason,
    )


def _count_part(
    counts: _Counts, paths: list[Path], sent_path: Path, start: int, rate: float, until: int
) -> None:
    """Account for the packets from number ``start`` on.

    A process of an embedded kernel must stay small (platform limits of User-Mode Linux), so a
    minute at 20,000 packets/s is counted in parts. Packet k belongs to flow k modulo FLOWS.
    """
    import numpy as np

    from kproxy.traffic import accounting, records

    sent = records.sent_array(sent_path, start=start, number=PART)
    received = {}
    drops = 0
    for path in paths:
        packets, state = records.received_array(path, 1)
        received[str(path)] = packets[packets["seq"] // (PART // FLOWS) == start // PART]
        drops += state.drops
    plan = accounting.Plan(rate_pps=rate, flows=FLOWS, watched_until_ns=until, tmax_ns=TMAX_NS)
    account = accounting.account(sent, received, plan)
    for name in ("sent", "received", "lost", "duplicated", "not_sent", "failed", "discarded"):
        setattr(counts, name, getattr(counts, name) + account.total(name))
    counts.strangers += account.strangers
    counts.drops = drops
    for packets in received.values():
        delays, times = np.unique(
            (packets["received_ns"] - packets["sent_ns"]) // 1000, return_counts=True
        )
        counts.delays.update(dict(zip(delays.tolist(), times.tolist(), strict=True)))


def _why_not(counts: _Counts, report: dict[str, Any]) -> str:
    """Return why the rate was not held, "" if it was."""
    unsent = counts.not_sent + counts.failed
    achieved, offered = report["achieved_pps"], report["offered_pps"]
    reasons = []
    if achieved < LEAST_SHARE * offered or unsent:
        failures = "".join(f", {text}: {number:,}" for text, number in report["failed"].items())
        reasons.append(
            f"the sender reached {achieved:,.0f} packets/s, {unsent:,} were not sent{failures}"
        )
    if counts.lost:
        reasons.append(
            f"{counts.lost:,} packets were lost, {counts.drops:,} at full socket buffers"
        )
    if counts.discarded or counts.strangers:
        reasons.append("packets could not be accounted for")
    return "; ".join(reasons)
