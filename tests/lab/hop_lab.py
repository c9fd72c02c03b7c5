"""A cluster's topology without a cluster: clients, nodes, pods, and probes whose fate is known."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kproxy.kernel.ipvs.types import ServiceKey
from kproxy.lab import hopcounts, hoplosses, plan
from kproxy.lab.hops import Hops
from kproxy.traffic import attribution, frames, records, wire
from kproxy.traffic.resultset import Loss
from netns.lab import Lab
from netns.topology import Host

PLAN = plan.Plan(nodes=2)
NODE1, NODE2 = PLAN.each_node()
PORT = 5300
SERVICE = IPv4Address("10.96.0.10")
FLOWS = 4
ORIGIN = "hit"
TMAX_NS = 100_000_000
TRIAL = 7
SCM_TIMESTAMPNS = 35
_TIMESTAMP = struct.Struct("@qq")


def pod_address(node: plan.NodePlan, number: int) -> IPv4Address:
    return node.pod_cidr.network_address + 1 + number


class Receiver:
    """A pod's socket: what it has taken, with the kernel's time of arrival."""

    def __init__(self, lab: Lab, host: str, address: IPv4Address) -> None:
        self.host = host
        with lab[host].entered():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((str(address), PORT))
        self.socket.setsockopt(socket.SOL_SOCKET, SCM_TIMESTAMPNS, 1)
        self._clock_ns = time.monotonic_ns() - time.time_ns()

    def read(self, *, echo: bool = False) -> list[tuple[int, int, int, int]]:
        """Return flow, number, times of sending and of arrival of what has come."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, control, _, peer = self.socket.recvmsg(2048, 128, socket.MSG_DONTWAIT)
                seconds, ns = _TIMESTAMP.unpack(control[0][2])
                _, trial, flow, _, seq, sent = wire.HEADER.unpack(data[: wire.HEADER.size])
                if trial == TRIAL:
                    arrived = seconds * 1_000_000_000 + ns + self._clock_ns
                    found.append((flow, seq, sent, arrived))
                if echo:
                    self.socket.sendto(data, peer)
        return found


class HopLab:
    """Sends probes from ``client1``, and accounts for them."""

    def __init__(self, lab: Lab, *, monitor: bool) -> None:
        self.lab = lab
        self.receivers: dict[str, Receiver] = {}
        self.hops = Hops(
            lab,
            senders={NODE1.client: ORIGIN, NODE2.client: "other"},
            routers=(NODE1.name, NODE2.name),
            skip=(plan.CONTROL,),
            monitor=monitor,
        )
        self.sent: list[tuple[int, int, int]] = []
        self.arrived: dict[str, list[tuple[int, int, int, int]]] = {}
        self.settled: dict[str, int] = {}
        self.fault_ns: int | None = None
        self.offered = False
        with lab[NODE1.client].entered():
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._out.bind(("eth0", 0))
        self._seq = 0

    def add_pod(self, name: str, node: plan.NodePlan, number: int) -> IPv4Address:
        address = pod_address(node, number)
        link = plan.pod_link(node.name, name, address, node_end=f"veth{number}")
        self.lab.add(Host(name=name, sysctls=plan.QUIET), links=[link])
        self.receivers[name] = Receiver(self.lab, name, address)
        return address

    def rule(self, host: str, command: list[str]) -> None:
        """Run a tool of rules in a host; a kernel without that kind of rules is no failure."""
        done = self.lab[host].run(command, check=False)
        if done.returncode:
            pytest.skip(f"not on this kernel: {done.stderr.strip()}")

    def virtual_server(self) -> None:
        """Let node1 balance the service by IPVS; what was sent to it is accounted for."""
        node = self.lab[NODE1.name]
        node.run(["ip", "link", "add", "vips", "type", "dummy"])
        node.run(["ip", "addr", "add", f"{SERVICE}/32", "dev", "vips"])
        node.run(["sysctl", "-w", "net.ipv4.vs.conntrack=1"])
        node.run(["ipvsadm", "-A", "-u", f"{SERVICE}:{PORT}", "-s", "rr"])
        self.offered = True

    def real_server(self, pod: IPv4Address, *, gone: bool = False) -> None:
        """Let the service have a pod, or no longer."""
        change = ["-d"] if gone else ["-a", "-m"]
        place = ["-u", f"{SERVICE}:{PORT}", "-r", f"{pod}:{PORT}"]
        self.lab[NODE1.name].run(["ipvsadm", *change, *place])

    def send(
        self, number: int, to: IPv4Address, *, first_port: int = 40000, spoil: bool = False
    ) -> None:
        """Send so many packets, a millisecond apart, over all flows in turn."""
        templates = [
            bytearray(flow.frame)
            for flow in frames.probes(
                flows=FLOWS,
                first_port=first_port,
                source_mac=str(self.lab[NODE1.client].interface("eth0").mac),
                gateway_mac=str(self.lab[NODE1.name].interface(NODE1.client).mac),
                source=NODE1.client_address,
                destination=to,
                destination_port=PORT,
            )
        ]
        for index in range(number):
            flow = index % FLOWS
            frame, now = templates[flow], time.monotonic_ns()
            at = len(frame) - wire.HEADER.size
            frame[at:] = wire.header(TRIAL, flow, seq=self._seq, sent_ns=now)
            if spoil:
                frame[at - 2 : at] = b"\x12\x34"  # a checksum that is wrong
            self._out.send(frame)
            self.sent.append((flow, self._seq, now))
            self._seq += 1
            time.sleep(0.001)  # the time between two packets

    def losses(self, *, strayed: Any = ()) -> tuple[Loss, ...]:
        """Account for all packets sent since :meth:`hops.begin`; they add up."""
        time.sleep(TMAX_NS / 1e9)  # what has not come by then is lost
        observed = self.hops.end()
        lost = self.lost()
        events = hoplosses.Events(fault_ns=self.fault_ns, settled=self.settled)
        found = hoplosses.losses(
            observed,
            self.hops.scene,
            trial=TRIAL,
            lost=lost,
            events=events,
            strayed=strayed,
            offered=self._offers(),
        ).get(ORIGIN, ())
        assert sum(one.packets for one in found) == len(lost)
        return found

    def lost(self) -> list[attribution.Missing]:
        for name, receiver in self.receivers.items():
            self.arrived.setdefault(name, []).extend(receiver.read())
        finder = attribution.Finder(ORIGIN, end_ns=time.monotonic_ns(), tmax_ns=TMAX_NS)
        sent = np.zeros(len(self.sent), records.SENT_FIELDS)
        for index, (flow, seq, ns) in enumerate(self.sent):
            sent[index] = (flow, seq, ns, records.STATUS_SENT, 0)
        received = {
            name: np.array(packets, records.RECEIVED_FIELDS)
            for name, packets in self.arrived.items()
            if packets
        }
        finder.add(sent, received)
        return finder.found

    def _offers(self) -> list[hopcounts.Offered]:
        if not self.offered:
            return []
        key = ServiceKey.of(17, SERVICE.packed, PORT.to_bytes(2, "big"))
        return [hopcounts.Offered(NODE1.name, key, ORIGIN, len(self.sent))]

    def close(self) -> None:
        self._out.close()
        for receiver in self.receivers.values():
            receiver.socket.close()


@contextmanager
def hop_lab(tmp_path: Path, *, monitor: bool) -> Iterator[HopLab]:
    with ExitStack() as stack:
        name = f"hl{os.getpid()}"
        lab = stack.enter_context(Lab(plan.topology(PLAN), name=name, state_dir=tmp_path / "lab"))
        found = HopLab(lab, monitor=monitor)
        stack.callback(found.close)
        stack.enter_context(found.hops)
        if monitor and found.hops.blind:
            pytest.skip(found.hops.blind)
        yield found
