"""Without a fault nothing is lost, and nothing needs explaining: 100,000 packets through IPVS."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hop_lab import NODE1, NODE2, ORIGIN, PORT, SERVICE, TRIAL, HopLab, hop_lab

from kproxy.lab import hopdrops
from kproxy.traffic import accounting, attribution, frames, profile, records
from netns.process import Process
from netns.wait import readable

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]

PACKETS = 100_000
RATE = 25_000.0
FLOWS = 16
PODS = {"shop-a": 1, "shop-b": 2}


def _started(there: HopLab, host: str, module: str, *options: str) -> Process:
    command = [sys.executable, "-m", f"kproxy.traffic.{module}", *options]
    process = there.lab[host].spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _said(process)
    return process


def _said(process: Process) -> bytes:
    """Return what a process says next."""
    assert process.popen is not None
    assert process.popen.stdout is not None
    fd = process.popen.stdout.fileno()
    assert readable(fd, 60)
    said = os.read(fd, 65536)
    assert said, "it has ended"
    return said


def _closed(process: Process) -> None:
    assert process.popen is not None
    for pipe in (process.popen.stdin, process.popen.stdout):
        assert pipe is not None
        pipe.close()


def _profile(there: HopLab, record: Path) -> profile.UdpProfile:
    return profile.UdpProfile(
        interface="eth0",
        rate_pps=RATE,
        quantum_ms=5.0,
        duration_s=PACKETS / RATE,
        record=record,
        trial=TRIAL,
        flows=frames.probes(
            flows=FLOWS,
            source_mac=str(there.lab[NODE1.client].interface("eth0").mac),
            gateway_mac=str(there.lab[NODE1.name].interface(NODE1.client).mac),
            source=NODE1.client_address,
            destination=SERVICE,
            destination_port=PORT,
        ),
    )


def test_a_hundred_thousand_packets_lose_nothing(tmp_path: Path) -> None:
    with hop_lab(tmp_path, monitor=True) as there:
        there.virtual_server()
        pods = {}
        for name, number in PODS.items():
            address = there.add_pod(name, NODE2, number)
            there.receivers.pop(name).socket.close()
            record = there.lab.scratch / name
            options = ("--udp", str(PORT), "--name", name, "--rate", str(int(RATE)))
            pods[name] = _started(there, name, "responder", "--record", str(record), *options)
            there.real_server(address)
        sender = _started(there, NODE1.client, "udp_send")
        there.hops.begin()
        path = there.lab.scratch / "profile.json"
        path.write_text(_profile(there, there.lab.scratch / "sent").to_json())
        assert sender.popen is not None
        assert sender.popen.stdin is not None
        sender.popen.stdin.write(b'{"do": "start", "profile": "%s"}\n' % os.fsencode(path))
        sender.popen.stdin.flush()
        while b'"stopped"' not in _said(sender):
            pass  # it tells that it has started
        time.sleep(1.0)  # longer than Tmax: what has not come by then is lost
        observed = there.hops.end()
        sent = records.sent_array(there.lab.scratch / "sent")
        received = {
            name: records.received_array(there.lab.scratch / name, TRIAL)[0] for name in pods
        }
        tmax = 500_000_000
        until = time.monotonic_ns() + tmax
        plan = accounting.Plan(rate_pps=RATE, flows=FLOWS, watched_until_ns=until, tmax_ns=tmax)
        account = accounting.account(sent, received, plan)
        counted = {name: account.total(name) for name in ("sent", "lost", "duplicated")}
        assert counted == {"sent": PACKETS, "lost": 0, "duplicated": 0}
        assert all(len(one) for one in received.values())
        finder = attribution.Finder(ORIGIN, end_ns=until, tmax_ns=tmax)
        finder.add(sent, received)
        assert finder.found == []
        drops = hopdrops.seen(observed.drops, there.hops.scene)
        assert [one for one in drops if one.probe is not None] == []
        for process in (sender, *pods.values()):
            _closed(process)
