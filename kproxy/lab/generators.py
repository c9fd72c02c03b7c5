"""The traffic generators of a lab: one UDP sender and one TCP client at every vantage point.

They are started once per cluster and told over pipes when to send (``kproxy.traffic.control``),
because starting a process costs more than a trial inside an embedded kernel.
"""

import contextlib
import json
import select
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from kproxy import errors
from kproxy.lab import layout, plan, workload
from kproxy.traffic import frames, profile
from netns.errors import WaitTimeout
from netns.host import LiveHost
from netns.lab import AttachedLab
from netns.process import Process

Number = TypeVar("Number", int, NDArray[Any])

FLOWS_PER_SERVICE = 16
"""RFC 6414, section 4.2, asks for at least 16 flows."""

FLOWS_PER_CLIENT = 1 << 16
"""Flow numbers tell the vantage point: those of number 2 begin with twice this."""

QUIT_SECONDS = 10.0
FASTEST_PPS = 512_000.0
"""What the sender can do at the most: one batch a millisecond (``kproxy.traffic.udp_send``)."""

FIRST_SOURCE_PORT = 1024
SOURCE_PORTS = 28000
"""Below the range from which the kernel takes the ports of TCP connections."""


class Generator:
    """One generator process, spoken to in lines of JSON."""

    def __init__(self, host: LiveHost, module: str, log: Path) -> None:
        self.name = f"{module} in {host.name}"
        command = [sys.executable, "-m", f"kproxy.traffic.{module}"]
        self.process: Process = host.spawn(command, stdin=-1, stdout=-1, stderr=log)
        assert self.process.popen is not None
        assert self.process.popen.stdin is not None
        assert self.process.popen.stdout is not None
        self._input = self.process.popen.stdin
        self._output = self.process.popen.stdout
        self._rest = b""

    def tell(self, do: str, **fields: Any) -> None:
        """Send a command."""
        try:
            self._input.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self._input.flush()
        except OSError:
            raise errors.MeasurementError(f"{self.name} has died") from None

    def expect(self, event: str, timeout: float) -> dict[str, Any]:
        """Wait for an answer and return it; an error answer, or none, raises MeasurementError."""
        deadline = time.monotonic() + timeout
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                answer: dict[str, Any] = json.loads(line)
                if answer["event"] == event:
                    return answer
                if answer["event"] == "error":
                    raise errors.MeasurementError(f"{self.name}: {answer['message']}")
                continue
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._output], [], [], remaining)[0]:
                raise errors.MeasurementError(
                    f"{self.name} did not answer {event!r} within {timeout:g} s"
                )
            data = self._output.read1(65536)  # type: ignore[attr-defined]  # Popen's pipes have it
            if not data:
                raise errors.MeasurementError(f"{self.name} has died")
            self._rest += data

    def quit(self) -> None:
        """End the process."""
        with contextlib.suppress(errors.MeasurementError):
            self.tell("quit")
        with contextlib.suppress(OSError):  # what a dead process did not read is flushed in vain
            self._input.close()
        try:
            self.process.wait(QUIT_SECONDS)
        except WaitTimeout:
            self.process.kill()
            self.process.wait(QUIT_SECONDS)
        self._output.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How much traffic one client sends. ``udp_pps`` is the total of all its flows."""

    udp_pps: float = 2000.0
    quantum_ms: float = 5.0
    """The sender wakes so often. A fraction of a flow's interval, so it costs no accuracy, and a
    fifth of the wake-ups, which are dear in an embedded kernel."""
    connections: int = 8
    """Open connections to each TCP service port, …"""
    request_interval_s: float = 0.5
    """… each with a request so often."""
    connects_per_s: float = 20.0
    """New connections, all TCP service ports together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a client was told to send in one trial, and where it records it."""

    udp_record: Path | None
    tcp_record: Path | None
    services: Mapping[int, str]
    """The service of each UDP flow."""


def first_port(base: int, trial: int, targets: int) -> int:
    """Return the first source port of a trial: no two trials share one, for hundreds of trials."""
    return FIRST_SOURCE_PORT + (base + trial * FLOWS_PER_SERVICE * targets) % SOURCE_PORTS


def origin(flow: Number) -> Number:
    """Return the number of the vantage point at which a flow, or each of an array, begins."""
    return flow // FLOWS_PER_CLIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Vantage:
    """A point from which traffic is sent: ``host`` sends by ``eth0`` from its ``address``.

    ``number`` is part of its flows' numbers: no two vantage points of a lab share it. The next
    hop is an interface of the host ``gateway``.
    """

    host: str
    number: int
    address: IPv4Address
    gateway: str
    gateway_interface: str


def behind(node: plan.NodePlan) -> Vantage:
    """Return the vantage point behind a node: that of a pod of it."""
    return Vantage(
        host=node.client,
        number=node.number,
        address=node.client_address,
        gateway=node.name,
        gateway_interface=node.client,
    )


class Client:
    """The generators at one vantage point."""

    def __init__(self, lab: AttachedLab, vantage: Vantage, files: layout.Layout) -> None:
        self.vantage = vantage
        self._first_flow = vantage.number * FLOWS_PER_CLIENT
        self._files = files
        host = lab.host(vantage.host)
        log = files.log(f"{vantage.host}-traffic")
        self.udp = Generator(host, "udp_send", log)
        self.tcp = Generator(host, "tcp_client", log)
        self._source_mac = str(host.interface("eth0").mac)
        gateway = lab.host(vantage.gateway).interface(vantage.gateway_interface)
        self._gateway_mac = str(gateway.mac)

    def await_ready(self) -> None:
        """Wait until both processes read commands."""
        self.udp.expect("ready", 60)
        self.tcp.expect("ready", 60)

    def start(
        self, trial: int, targets: Sequence[workload.Target], rates: Rates, first_port: int
    ) -> Started:
        """Start sending, from source ports on from ``first_port``; returns when both do.

        Every trial should have ports of its own: the kernel keeps a flow's endpoint for minutes,
        so old flows would all gather at the endpoints that have never been replaced.
        """
        udp = [target for target in targets if target.protocol == "UDP"]
        flows = self._flows(first_port, udp)
        udp_record = self._start_udp(trial, flows, rates) if flows else None
        tcp = [target for target in targets if target.protocol == "TCP"]
        tcp_record = self._start_tcp(trial, tcp, rates) if tcp else None
        if udp_record:
            self.udp.expect("started", 30)
        if tcp_record:
            self.tcp.expect("started", 30)
        return Started(
            udp_record=udp_record,
            tcp_record=tcp_record,
            services={
                flow.flow: str(udp[number // FLOWS_PER_SERVICE])
                for number, flow in enumerate(flows)
            },
        )

    def stop(self, started: Started) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Stop sending; return the reports of the UDP sender and of the TCP client."""
        if started.udp_record:
            self.udp.tell("stop")
        if started.tcp_record:
            self.tcp.tell("stop")
        udp = self.udp.expect("stopped", 30)["report"] if started.udp_record else None
        tcp = self.tcp.expect("stopped", 30)["report"] if started.tcp_record else None
        return udp, tcp

    def quit(self) -> None:
        """End the generators."""
        self.udp.quit()
        self.tcp.quit()

    def _flows(
        self, first_port: int, targets: Sequence[workload.Target]
    ) -> tuple[profile.UdpFlow, ...]:
        """Craft the frames of all flows: 16 to every UDP service port."""
        flows: list[profile.UdpFlow] = []
        for target in targets:
            flows += frames.probes(
                flows=FLOWS_PER_SERVICE,
                first_flow=self._first_flow + len(flows),
                first_port=first_port + len(flows),
                source_mac=self._source_mac,
                gateway_mac=self._gateway_mac,
                source=self.vantage.address,
                destination=IPv4Address(target.address),
                destination_port=target.port,
            )
        return tuple(flows)

    def _start_udp(self, trial: int, flows: tuple[profile.UdpFlow, ...], rates: Rates) -> Path:
        record = self._files.records / f"{self.vantage.host}.sent"
        wanted = profile.UdpProfile(
            interface="eth0",
            rate_pps=rates.udp_pps,
            quantum_ms=rates.quantum_ms,
            flows=flows,
            record=record,
            trial=trial,
        )
        self._give(self.udp, "udp", wanted.to_json())
        return record

    def _start_tcp(self, trial: int, targets: Sequence[workload.Target], rates: Rates) -> Path:
        record = self._files.records / f"{self.vantage.host}.tcp"
        wanted = profile.TcpProfile(
            record=record,
            trial=trial,
            established=tuple(
                profile.Established(
                    target=target.number,
                    address=target.address,
                    port=target.port,
                    connections=rates.connections,
                    interval_s=rates.request_interval_s,
                )
                for target in targets
            ),
            connects=tuple(
                profile.Connects(
                    target=target.number,
                    address=target.address,
                    port=target.port,
                    rate_per_s=rates.connects_per_s / len(targets),
                )
                for target in targets
            ),
        )
        self._give(self.tcp, "tcp", wanted.to_json())
        return record

    def _give(self, generator: Generator, kind: str, text: str) -> None:
        path = self._files.records / f"{self.vantage.host}.{kind}.json"
        path.write_text(text)
        generator.tell("start", profile=str(path))
