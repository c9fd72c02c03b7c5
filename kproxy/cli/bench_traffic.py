"""``kproxy bench traffic``: which rate this machine can offer and count without losing a packet.

One client sends through a node with an IPVS virtual server to two pods; every packet is counted.
A comparison is worth nothing at a rate at which the generator or the receivers fail by themselves.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import click

from kproxy.cli.kernel_option import KernelChoice, kernel_options, run_on_kernel
from kproxy.errors import KernelError, MeasurementError

SERVICE = IPv4Address("10.96.0.10")
PORT = 5353
PODS = ("pod1", "pod2")
FLOWS = 16
TMAX_NS = 2_000_000_000
#: A sender slower than this share of the rate has not held it.
LEAST_SHARE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was offered, sent and counted. ``held``: the rate was offered and nothing was lost."""

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
    delay_ms: dict[str, float]
    reason: str

    def text(self) -> str:
        """Return it in words."""
        late = self.lateness_ms
        return (
            f"offered {self.offered_pps:,.0f} packets/s, sent {self.achieved_pps:,.0f} packets/s: "
            f"{self.sent:,} sent, {self.received:,} received, {self.lost:,} lost\n"
            f"lateness of sending p50 {late['p50']:.3f} ms, p99 {late['p99']:.3f} ms, "
            f"max {late['max']:.3f} ms\n"
            + ("the rate is held, nothing is lost" if self.held else f"NOT held: {self.reason}")
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
@kernel_options
def traffic(rate: float, seconds: float, as_json: bool, kernel: KernelChoice) -> int:
    """Send UDP through IPVS at a rate, and count every packet.

    Exit code 1 if the rate could not be held or a packet was lost.
    """
    run_on_kernel(kernel)
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


def _account(paths: list[Path], sent_path: Path, report: dict[str, Any]) -> Outcome:
    import time

    from kproxy.traffic import accounting, records
    from kproxy.traffic.summary import percentile

    # What is still on its way after Tmax is lost by definition.
    time.sleep(TMAX_NS / 1e9)
    until = time.monotonic_ns()
    readings = [records.read_received(path, 1) for path in paths]
    received = records.merge(packets for packets, _ in readings)
    plan = accounting.Plan(
        rate_pps=report["offered_pps"], flows=FLOWS, watched_until_ns=until, tmax_ns=TMAX_NS
    )
    account = accounting.account(records.read_sent(sent_path), received, plan)
    delays = sorted((p.received_ns - p.sent_ns) / 1e6 for p in received)
    drops = sum(state.drops for _, state in readings)
    reason = _why_not(account, report, drops)
    return Outcome(
        offered_pps=report["offered_pps"],
        achieved_pps=round(report["achieved_pps"], 1),
        sent=account.total("sent"),
        received=account.total("received"),
        lost=account.total("lost"),
        held=not reason,
        duplicated=account.total("duplicated"),
        not_sent=account.total("not_sent"),
        failed=account.total("failed"),
        receiver_drops=drops,
        lateness_ms={name: round(value, 3) for name, value in report["lateness_ms"].items()},
        delay_ms={
            name: round(percentile(delays, percent) or 0.0, 3)
            for name, percent in (("p50", 50), ("p99", 99), ("max", 100))
        },
        reason=reason,
    )


def _why_not(account: Any, report: dict[str, Any], drops: int) -> str:
    """Return why the rate was not held, "" if it was."""
    unsent = account.total("not_sent") + account.total("failed")
    achieved, offered = report["achieved_pps"], report["offered_pps"]
    reasons = []
    if achieved < LEAST_SHARE * offered or unsent:
        failures = "".join(f", {text}: {number:,}" for text, number in report["failed"].items())
        reasons.append(
            f"the sender reached {achieved:,.0f} packets/s, {unsent:,} were not sent{failures}"
        )
    if account.total("lost"):
        reasons.append(
            f"{account.total('lost'):,} packets were lost, {drops:,} at full socket buffers"
        )
    if account.total("discarded") or account.strangers:
        reasons.append("packets could not be accounted for")
    return "; ".join(reasons)
