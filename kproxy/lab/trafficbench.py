"""The bench of the traffic generators: what they can offer and count without losing a packet.

::

    client ── node ── pod1       an IPVS virtual server in the node, two pods behind it
                └──── pod2

Every packet is counted, and what is lost is looked for in the counters of sockets and links.
"""

import contextlib
import dataclasses
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from kproxy.errors import KernelError, MeasurementError
from kproxy.kernel import inet
from kproxy.kernel.ipvs import client as ipvs_client
from kproxy.kernel.ipvs import types as ipvs_types
from kproxy.lab import generators
from kproxy.traffic import (
    accounting,
    calibration,
    frames,
    packetfile,
    parts,
    profile,
    recordfile,
    records,
)
from kproxy.traffic.resultset import Cause, Loss
from netns import lab as netns_lab
from netns.kernels import base
from netns.topology import Host, Interface, Link, Route, RouteKind, Topology

SERVICE = IPv4Address("10.96.0.10")
PORT = 5353
STREAM_PORT = 8080
CLIENT, NODE, PODS = "client", "node", ("pod1", "pod2")
FLOWS = 16
TMAX_NS = 2_000_000_000
MOST_PPS = generators.FASTEST_PPS
#: A sender slower than this share of the rate has not held it.
LEAST_SHARE = 0.99
_LOOK_SECONDS = 0.02
SEARCHING_PPS = 10_000.0
"""While a highest rate is looked for receivers' buffers hold two seconds of so much: with large
ones receivers that do not keep up would be seen only after long."""
_ATTEMPT_SECONDS = 0.5
_SPARE_RECORDS = 20_000_000
"""Of a sparse file: room for many attempts and for duplicates costs nothing."""
#: Seconds of CPU time that counting may take: at least, and for each packet; generously.
_LEAST_COUNTING, _COUNTING = 60.0, 0.0002


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One stream, the sender's report on itself, and the account of every packet."""

    report: dict[str, Any]
    account: accounting.Account
    losses: tuple[Loss, ...]
    receiver_drops: int

    @property
    def unexplained(self) -> int:
        """How many packets were lost without place and cause."""
        return sum(one.packets for one in self.losses if one.cause is Cause.UNEXPLAINED)

    def why_not(self) -> str:
        """Return why the rate was not held, "" if it was."""
        total, report = self.account.total, self.report
        unsent = total("not_sent") + total("failed")
        achieved = report["achieved_pps"]
        reasons = []
        if report["pace"] < LEAST_SHARE or unsent:
            failures = "".join(f", {text}: {n:,}" for text, n in report["failed"].items())
            reasons.append(
                f"the sender reached {achieved:,.0f} packets/s, {unsent:,} were not sent{failures}"
            )
        if total("lost"):
            where = "; ".join(f"{x.packets:,} {x.cause} at {x.place}" for x in self.losses)
            reasons.append(f"{total('lost'):,} packets were lost: {where}")
        if total("discarded") or self.account.strangers:
            reasons.append("packets could not be accounted for")
        return "; ".join(reasons)


class Bench:
    """The lab, its sender and its receivers; runs streams one after the other."""

    def __init__(self, lab: netns_lab.Lab, packets: int, buffered_pps: float) -> None:
        self.lab = lab
        self._trial = 0
        self._planned = 0
        self._buffered_pps = max(1, round(buffered_pps))
        self.sctp = has_sctp()
        self.address = IPv4Address("10.250.0.2")
        self.source_mac = str(lab[CLIENT].interface("eth0").mac)
        self.gateway_mac = str(lab[NODE].interface(CLIENT).mac)
        self.sent_record = lab.scratch / "sent"
        self.records = [self._responder(pod, packets) for pod in PODS]
        self._sender = generators.Generator(lab[CLIENT], "udp_send", lab.scratch / "log")
        self._sender.expect("ready", 60)
        self._flows = frames.probes(
            flows=FLOWS,
            source_mac=self.source_mac,
            gateway_mac=self.gateway_mac,
            source=self.address,
            destination=SERVICE,
            destination_port=PORT,
        )

    def _responder(self, pod: str, packets: int) -> Path:
        """Start a pod's responder, wait until it listens; returns its record file."""
        record = Path(self.lab.scratch / pod)
        options = ["--udp", str(PORT), "--tcp", str(STREAM_PORT)]
        options += ["--rate", str(self._buffered_pps)]
        if self.sctp:
            options += ["--sctp", str(STREAM_PORT)]
        self.respond(pod, record, packets + _SPARE_RECORDS, options)
        return record

    def respond(self, pod: str, record: Path, capacity: int, options: list[str]) -> None:
        """Start a responder and wait until it listens."""
        command = [sys.executable, "-m", "kproxy.traffic.responder", "--name", pod, *options]
        command += ["--record", str(record), "--capacity", str(capacity)]
        process = self.lab[pod].spawn(command, stdout=subprocess.PIPE)
        assert process.popen is not None
        assert process.popen.stdout is not None
        with process.popen.stdout as said:
            ready = said.readline()
        if b"ready" not in ready:
            raise MeasurementError(f"the responder of {pod} did not start")

    def close(self) -> None:
        """End the sender."""
        self._sender.quit()

    def run(self, rate: float, seconds: float) -> Run:
        """Send at a rate, wait for what is on its way, account for all of it."""
        wanted = profile.UdpProfile(
            interface="eth0",
            rate_pps=rate,
            duration_s=seconds,
            record=self.sent_record,
            capacity=int(rate * seconds) + 1000,
            flows=self._flows,
        )
        return self.stream(wanted, self.records)

    def stream(self, wanted: profile.UdpProfile, received: list[Path]) -> Run:
        """Send a stream that ends, and account for it; ``received``: a file for each pod."""
        self._trial += 1
        wanted = dataclasses.replace(wanted, trial=self._trial)
        seconds = wanted.duration_s or 0.0
        path = self.lab.scratch / "profile.json"
        path.write_text(wanted.to_json())
        states = [_state(record) for record in received]
        links = self._link_drops()
        self._sender.tell("start", profile=str(path))
        report: dict[str, Any] = self._sender.expect("stopped", 10 * seconds + 60)["report"]
        ended = time.monotonic_ns()
        self._planned = int(report["planned"])
        until = self._settle(ended, received, sum(n for n, _ in states) + report["sent"])
        account = self._account(wanted, received, until)
        if account.total("lost") and time.monotonic_ns() < until:
            # Sections and duplicates are records, too, so perhaps the last ones had not come yet.
            time.sleep((until - time.monotonic_ns()) / 1e9)
            account = self._account(wanted, received, until)
        before = {pod: drops for pod, (_, drops) in zip(PODS, states, strict=True)}
        after = {pod: _state(path)[1] for pod, path in zip(PODS, received, strict=True)}
        found = [
            Loss(place=pod, cause=Cause.RECEIVER, packets=after[pod] - before[pod],
                 witness="SO_MEMINFO of its socket")
            for pod in PODS
        ]  # fmt: skip
        for place, drops in self._link_drops().items():
            found.append(
                Loss(place=place, cause=Cause.LINK, packets=drops - links[place],
                     witness="/proc/net/dev")
            )  # fmt: skip
        return Run(
            report=report,
            account=account,
            losses=explained(account.total("lost"), found),
            receiver_drops=sum(after.values()) - sum(before.values()),
        )

    def keep(self, path: Path) -> int:
        """Write the packets of the last run into a file; returns how many (see packetfile)."""
        found = parts.parts(self.sent_record, self.records, self._trial)
        with base.computing(_LEAST_COUNTING + self._planned * _COUNTING):
            return packetfile.write(path, found, list(PODS))

    def attempt(self, rate: float) -> calibration.Attempt:
        """Try a rate for half a second."""
        run = self.run(rate, _ATTEMPT_SECONDS)
        total = run.account.total
        return calibration.Attempt(
            offered_pps=rate,
            achieved_pps=run.report["achieved_pps"],
            lost=total("lost") + total("not_sent") + total("failed"),
            why=run.why_not(),
        )

    def peer(self, way: str, seconds: float) -> float:
        """Return how many packets/s another program sends (:mod:`kproxy.traffic.peers`)."""
        command = [sys.executable, "-m", "kproxy.traffic.peers", way, "eth0", str(seconds)]
        command += [flow.frame.hex() for flow in self._flows]
        before = sum(_state(record)[0] for record in self.records)
        done = json.loads(self.lab[CLIENT].run(command, timeout=60 + 10 * seconds).stdout)
        # What is on its way belongs to no trial, and would disturb the next one.
        self._settle(time.monotonic_ns(), self.records, before + done["sent"])
        return float(done["sent"] / done["seconds"])

    @staticmethod
    def _settle(ended: int, received: list[Path], expected: int) -> int:
        """Wait until so much has been recorded, at most Tmax; returns until when is watched.

        What is still on its way after Tmax is lost by definition.
        """
        while time.monotonic_ns() < ended + TMAX_NS:
            if sum(_state(record)[0] for record in received) >= expected:
                return max(time.monotonic_ns(), ended + TMAX_NS)
            time.sleep(_LOOK_SECONDS)
        return time.monotonic_ns()

    def _account(
        self, wanted: profile.UdpProfile, received: list[Path], until: int
    ) -> accounting.Account:
        plan = accounting.Plan(
            rate_pps=wanted.rate_pps,
            flows=len(wanted.flows),
            watched_until_ns=until,
            tmax_ns=TMAX_NS,
        )
        accountant = accounting.Accountant(plan)
        with base.computing(_LEAST_COUNTING + self._planned * _COUNTING):
            for sent, arrived in parts.parts(wanted.record, received, wanted.trial):
                accountant.add(sent, arrived)
            return accountant.result()

    def _link_drops(self) -> dict[str, int]:
        """Return what each host's links have dropped for good, as its kernel counts it.

        What the sender's own link drops stays due in its ring and is sent again.
        """
        return {
            name: dropped(self.lab[name].run(["cat", "/proc/net/dev"]).stdout)
            for name in (NODE, *PODS)
        }


def _state(path: Path) -> tuple[int, int]:
    """Return how many packets a receiver's file has, nearly, and how many its socket dropped."""
    with recordfile.RecordReader(path, recordfile.KIND_RECEIVED, records.RECEIVED_SIZE) as file:
        return file.count, file.drops


def dropped(text: str) -> int:
    """Return the sum of the packets that were dropped on sending, of a ``/proc/net/dev``.

    What a veth's far end could not receive is counted at both ends.
    """
    return sum(int(line.partition(":")[2].split()[11]) for line in text.splitlines()[2:])


def explained(lost: int, found: list[Loss]) -> tuple[Loss, ...]:
    """Return what explains lost packets, no more than were lost, and what nothing explains."""
    said = []
    for one in found:
        packets = min(one.packets, lost)
        if packets > 0:
            said.append(Loss(place=one.place, cause=one.cause, packets=packets,
                             witness=one.witness))  # fmt: skip
            lost -= packets
    if lost:
        said.append(Loss(place="", cause=Cause.UNEXPLAINED, packets=lost))
    return tuple(said)


@contextlib.contextmanager
def opened(packets: int, buffered_pps: float) -> Iterator[Bench]:
    """Lay the lab for up to so many packets beside those of attempts; take it away again.

    Receivers' buffers hold two seconds of traffic at ``buffered_pps``.
    """
    with netns_lab.signals_unwind(), netns_lab.Lab(_topology(), name="kproxy-bench") as lab:
        lab[NODE].call(_virtual_servers)
        bench = Bench(lab, packets, buffered_pps)
        try:
            yield bench
        finally:
            bench.close()


def _topology() -> Topology:
    def link(number: int, host: str) -> Link:
        network = f"10.250.{number}"
        way = Route(to=ip_network("0.0.0.0/0"), via=IPv4Address(f"{network}.1"))
        return Link(
            a=Interface(host=NODE, name=host, addresses=(ip_interface(f"{network}.1/24"),)),
            b=Interface(
                host=host, name="eth0", addresses=(ip_interface(f"{network}.2/24"),), routes=(way,)
            ),
        )

    service = Route(to=ip_network(SERVICE), dev="lo", kind=RouteKind.LOCAL)
    hosts = (CLIENT, *PODS)
    return Topology(
        hosts=(
            Host(name=NODE, sysctls={"net.ipv4.ip_forward": "1"}, routes=(service,)),
            *(Host(name=name) for name in hosts),
        ),
        links=tuple(link(number, host) for number, host in enumerate(hosts)),
    )


def has_sctp() -> bool:
    """Tell whether this kernel has SCTP sockets."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def _virtual_servers() -> None:
    streams = [inet.Protocol.TCP] + [inet.Protocol.SCTP] * has_sctp()
    operations: list[ipvs_types.Operation] = []
    for protocol, port in ((inet.Protocol.UDP, PORT), *((one, STREAM_PORT) for one in streams)):
        key = ipvs_types.ServiceKey(protocol, SERVICE, port)
        operations.append(ipvs_types.AddService(key, ipvs_types.ServiceConfig()))
        for number in range(1, len(PODS) + 1):
            server = ipvs_types.DestinationKey(IPv4Address(f"10.250.{number}.2"), port)
            operations.append(
                ipvs_types.AddDestination(key, server, ipvs_types.DestinationConfig())
            )
    with ipvs_client.IPVS() as ipvs:
        refused = [error for error in ipvs.run(operations) if error is not None]
    if refused:
        raise refused[0] if isinstance(refused[0], KernelError) else AssertionError(refused)
