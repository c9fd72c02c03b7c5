"""A client and a pod on one wire, with the project's generators and responder in them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from kproxy.traffic import accounting, frames, profile, records
from netns.lab import Lab
from netns.process import Process
from netns.topology import Host, Interface, Link, Topology
from netns.wait import readable, wait_until

CLIENT = ip_interface("192.0.2.1/24")
POD = ip_interface("192.0.2.2/24")
CLIENT6 = ip_interface("2001:db8::1/64")
POD6 = ip_interface("2001:db8::2/64")
UDP_PORT = 5353
TCP_PORT = 8080
FLOWS = 16
RESPONDER = [sys.executable, "-m", "kproxy.traffic.responder"]


@contextmanager
def pair(tmp_path: Path) -> Iterator[Lab]:
    ends = [
        Interface(host="client", name="eth0", addresses=(CLIENT, CLIENT6)),
        Interface(host="pod", name="eth0", addresses=(POD, POD6)),
    ]
    topology = Topology(
        hosts=(Host(name="client"), Host(name="pod")), links=(Link(a=ends[0], b=ends[1]),)
    )
    with Lab(topology, name=f"tp{os.getpid()}", state_dir=tmp_path / "lab") as lab:
        yield lab
    close_speakers()


class Speaker:
    """A process in a host that prints a JSON object a line."""

    def __init__(self, lab: Lab, host: str, command: list[str], **streams: Any) -> None:
        self.process = lab[host].spawn(command, stdout=subprocess.PIPE, **streams)
        _speakers.append(self)
        self._rest = b""
        assert self.answer()["event"] == "ready"

    def answer(self, timeout: float = 30) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.popen is not None
        assert self.process.popen.stdout is not None
        fd = self.process.popen.stdout.fileno()
        while b"\n" not in self._rest:
            assert readable(fd, timeout), f"no answer within {timeout} s"
            data = os.read(fd, 65536)
            assert data, "it has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        value: dict[str, Any] = json.loads(line)
        return value

    def close(self) -> None:
        assert self.process.popen is not None
        for pipe in (self.process.popen.stdin, self.process.popen.stdout):
            if pipe is not None:
                pipe.close()


_speakers: list[Speaker] = []


def close_speakers() -> None:
    """Close what connects this process with generators and responders."""
    while _speakers:
        _speakers.pop().close()


def responder(lab: Lab, *options: str) -> tuple[Process, Path]:
    record = lab.scratch / "received"
    command = [*RESPONDER, "--name", "pod-1"]
    command += ["--tcp", str(TCP_PORT), "--udp", str(UDP_PORT), "--record", str(record), *options]
    return Speaker(lab, "pod", command).process, record


class Generator(Speaker):
    """A generator in the client's host, told over its standard input what to do."""

    def __init__(self, lab: Lab, module: str) -> None:
        self.scratch = lab.scratch
        command = [sys.executable, "-m", f"kproxy.traffic.{module}"]
        super().__init__(lab, "client", command, stdin=subprocess.PIPE)

    def tell(self, what: str, **fields: Any) -> dict[str, Any]:
        assert self.process.popen is not None
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(json.dumps({"do": what, **fields}).encode() + b"\n")
        self.process.popen.stdin.flush()
        return self.answer()

    def start(self, wanted: profile.UdpProfile | profile.TcpProfile) -> dict[str, Any]:
        path = self.scratch / "profile.json"
        path.write_text(wanted.to_json())
        return self.tell("start", profile=str(path))


def udp_profile(lab: Lab, *, version: int = 4, **changes: Any) -> profile.UdpProfile:
    source, destination = (CLIENT, POD) if version == 4 else (CLIENT6, POD6)
    given: dict[str, Any] = {
        "interface": "eth0",
        "rate_pps": 1000.0,
        "record": lab.scratch / "sent",
        "trial": 1,
        "flows": frames.probes(
            flows=FLOWS,
            source_mac=str(lab["client"].interface("eth0").mac),
            gateway_mac=str(lab["pod"].interface("eth0").mac),
            source=source.ip,
            destination=destination.ip,
            destination_port=UDP_PORT,
        ),
        **changes,
    }
    return profile.UdpProfile(**given)


def settled(record: Path, number: int) -> None:
    """Wait until so many packets of trial 1 have been recorded."""
    wait_until(
        lambda: len(records.read_received(record, 1)[0]) >= number, 30, f"{number} packets arrive"
    )


def account(
    lab: Lab, record: Path, *, rate: float = 1000.0, flows: int = FLOWS
) -> accounting.Account:
    tmax = 3_000_000_000
    plan = accounting.Plan(
        rate_pps=rate,
        flows=flows,
        watched_until_ns=time.monotonic_ns() + tmax,
        tmax_ns=tmax,
    )
    sent = records.sent_array(lab.scratch / "sent")
    received, state = records.received_array(record, 1)
    return accounting.account(sent, {state.pod: received}, plan)


def iptables(lab: Lab) -> str:
    """Return the variant that this kernel can do."""
    for name in ("iptables", "iptables-legacy"):
        if lab["pod"].run([name, "-N", "probe"], check=False).returncode == 0:
            return name
    pytest.skip("needs a kernel with iptables, nft or legacy")
