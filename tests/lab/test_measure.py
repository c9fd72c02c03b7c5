"""``kproxy measure`` between two hosts on one wire: what is lost, when, and by whose clock."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import traffic_pair

from kproxy.traffic import resultset
from netns import namespace
from netns.lab import Lab
from netns.process import Process
from netns.wait import readable, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("nft")]

TOKEN = "between us"
PORT = traffic_pair.UDP_PORT
KPROXY = [sys.executable, "-m", "kproxy", "measure"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with traffic_pair.pair(tmp_path_factory.mktemp("pair")) as found:
        yield found


@pytest.fixture(scope="module")
def receiver(lab: Lab) -> Iterator[Process]:
    command = [*KPROXY, "receive", "--interface", "eth0", "--port", str(PORT), "--name", "far"]
    process = lab["pod"].spawn([*command, "--token", TOKEN], stderr=subprocess.PIPE)
    assert process.popen is not None
    assert process.popen.stderr is not None
    assert readable(process.popen.stderr.fileno(), 60)
    yield process
    process.kill()
    process.wait(30)
    process.popen.stderr.close()


def send(
    lab: Lab, out: Path, *options: str, to: str = f"192.0.2.2:{PORT}"
) -> tuple[int, dict[str, Any], resultset.Measurement]:
    """Run a measurement; return its exit code, its parameters and what it found."""
    words = [*KPROXY, "send", "--to", to, "--out", str(out), *options]
    done = lab["client"].run(words, timeout=200, check=False)
    assert (out / "result.json").exists(), done.stderr
    results = resultset.read(out / "result.json")
    (trial,) = results.trials
    (measured,) = trial.measurements
    return done.returncode, results.parameters, measured


def one_way(lab: Lab, out: Path, *options: str, six: bool = False) -> Any:
    to = f"[2001:db8::2]:{PORT}" if six else f"192.0.2.2:{PORT}"
    host = "[2001:db8::2]" if six else "192.0.2.2"
    words = ["--interface", "eth0", "--receiver", host, "--token", TOKEN, *options]
    return send(lab, out, *words, to=to)


@pytest.mark.parametrize("six", [False, True])
def test_nothing_lost_is_told_as_nothing_lost(
    lab: Lab, receiver: Process, tmp_path: Path, six: bool
) -> None:
    code, parameters, measured = one_way(lab, tmp_path, "--seconds", "1", six=six)
    assert (code, measured.sent, measured.received, measured.lost) == (0, 1000, 1000, 0)
    assert (measured.duplicated, measured.reordered, measured.strangers) == (0, 0, 0)
    asked = parameters["measure"]
    assert asked["clocks"]["same"] is True
    assert asked["receiver"] == {"name": "far", "interface": "eth0", "port": PORT}
    arrivals = asked["arrivals"]
    assert (arrivals["timestamps"], arrivals["unstamped"]) == ("software", 0)
    assert (asked["round_trip"], len(measured.flows)) == (False, 16)
    assert measured.delay is not None
    assert measured.delay.max_ms < 3000


def test_a_counted_number_of_drops_is_found(lab: Lab, receiver: Process, tmp_path: Path) -> None:
    rule = f"udp dport {PORT} numgen inc mod 7 == 0 counter drop"
    chain = f"chain thief {{\ntype filter hook input priority 0\n{rule}\n}}"
    lab["pod"].run(["nft", "-f", "-"], input=f"table ip thief {{\n{chain}\n}}\n")
    code, _, measured = one_way(lab, tmp_path, "--seconds", "1.4")
    listing = lab["pod"].run(["nft", "--json", "list", "table", "ip", "thief"]).stdout
    lab["pod"].run(["nft", "delete", "table", "ip", "thief"])
    (dropped,) = [
        each["counter"]["packets"]
        for entry in json.loads(listing)["nftables"]
        for each in entry.get("rule", {}).get("expr", ())
        if "counter" in each
    ]
    assert dropped == 200
    assert (code, measured.sent, measured.lost) == (1, 1400, 200)


def test_a_mark_makes_the_outage_a_failover(lab: Lab, receiver: Process, tmp_path: Path) -> None:
    words = [*KPROXY, "send", "--to", f"192.0.2.2:{PORT}", "--out", str(tmp_path)]
    words += ["--interface", "eth0", "--receiver", "192.0.2.2", "--token", TOKEN]
    words += ["--seconds", "0", "--mark-on", "SIGUSR1"]
    with namespace.entered(lab["pod"].namespace):
        arrivals = Path("/proc/thread-self/net/snmp")
        before = _datagrams(arrivals)
        process = lab["client"].spawn(words)
        wait_until(lambda: _datagrams(arrivals) > before + 500, 60, "packets arrive")
    drop = "table ip thief {\nchain thief {\ntype filter hook input priority 0\n"
    drop += f"udp dport {PORT} drop\n}}\n}}\n"
    process.signal(signal.SIGUSR1)
    lab["pod"].run(["nft", "-f", "-"], input=drop)
    time.sleep(0.5)  # the outage itself
    lab["pod"].run(["nft", "delete", "table", "ip", "thief"])
    time.sleep(0.5)  # without it again, so that the outage has an end
    process.signal(signal.SIGINT)
    process.wait(60)
    (trial,) = resultset.read(tmp_path / "result.json").trials
    (measured,) = trial.measurements
    assert [event.name for event in trial.timeline] == ["first packet", "mark 1"]
    assert trial.timeline[0].ms < 0
    assert measured.lost
    assert measured.recovered
    assert measured.failover_packet_loss == measured.lost
    assert measured.outside_fault == 0
    found = measured.failover
    assert found is not None
    # By the packets' own stamps and by their number; by the clock it also counts how long it took
    # from the mark to the rule.
    assert found.tbm_ms.low_ms <= found.plbm_ms.high_ms
    assert found.plbm_ms.low_ms <= found.tbm_ms.high_ms
    assert found.tblm_ms.ms >= found.plbm_ms.low_ms
    assert measured.failover_time_ms is not None
    assert measured.failover_time_ms + (measured.accuracy_ms or 0) >= 500
    assert trial.problems == ()


def test_a_receiver_that_dies_leaves_the_senders_half(lab: Lab, tmp_path: Path) -> None:
    command = [*KPROXY, "receive", "--port", "6004", "--control", ":6005", "--token", TOKEN]
    far = lab["pod"].spawn(command, stderr=subprocess.PIPE)
    assert far.popen is not None
    assert far.popen.stderr is not None
    assert readable(far.popen.stderr.fileno(), 60)
    words = [*KPROXY, "send", "--to", "192.0.2.2:6004", "--interface", "eth0", "--seconds", "0"]
    words += ["--receiver", "192.0.2.2:6005", "--token", TOKEN, "--out", str(tmp_path)]
    with namespace.entered(lab["pod"].namespace):
        arrivals = Path("/proc/thread-self/net/snmp")
        before = _datagrams(arrivals)
        process = lab["client"].spawn(words)
        wait_until(lambda: _datagrams(arrivals) > before + 100, 60, "packets arrive")
    far.kill()
    far.wait(30)
    far.popen.stderr.close()
    assert process.wait(60) == 1
    (trial,) = resultset.read(tmp_path / "result.json").trials
    (measured,) = trial.measurements
    assert (measured.sent or 0) > 100
    assert (measured.received, measured.lost) == (None, None)
    assert measured.sender is not None
    assert "the receiver's records are missing: 192.0.2.2:6005" in trial.problems[0]


def _datagrams(path: Path) -> int:
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith("Udp:")]
    return int(dict(zip(*lines, strict=True))["InDatagrams"])


AHEAD = 1000
"""Seconds by which the other clock is ahead."""


@pytest.mark.needs_tool("unshare")
def test_two_clocks_are_compared_within_the_stated_error(lab: Lab, tmp_path: Path) -> None:
    """The receiver lives in a time namespace, so its clock is known to be so far ahead."""
    apart = ["unshare", "--time", "--monotonic", str(AHEAD), "--fork", "--kill-child"]
    if lab["pod"].run([*apart, "true"], check=False).returncode:
        pytest.skip("needs a kernel with time namespaces")
    command = [*KPROXY, "receive", "--port", "6002", "--control", ":6003", "--token", TOKEN]
    far = lab["pod"].spawn([*apart, *command], stderr=subprocess.PIPE)
    assert far.popen is not None
    assert far.popen.stderr is not None
    assert readable(far.popen.stderr.fileno(), 60)
    words = ["--interface", "eth0", "--receiver", "192.0.2.2:6003", "--token", TOKEN]
    code, parameters, measured = send(lab, tmp_path, *words, "--seconds", "1", to="192.0.2.2:6002")
    far.kill()
    far.wait(30)
    far.popen.stderr.close()
    clocks = parameters["measure"]["clocks"]
    assert (code, measured.sent, measured.lost) == (0, 1000, 0)
    assert (clocks["same"], clocks["exchanges"]) == (False, 64)
    # Microseconds are what is written down.
    assert abs(clocks["offset_ms"] - AHEAD * 1000) <= clocks["error_ms"] + 0.001
    assert abs(clocks["drift_ppm"]) <= clocks["drift_error_ppm"]
    assert measured.delay is not None
    assert measured.delay.accuracy_ms >= round(clocks["error_ms"], 3)
    assert measured.delay.max_ms < 3000


@pytest.mark.parametrize("kind", ["echo", "tcp", "icmp"])
def test_servers_that_know_nothing_of_it_are_measured(lab: Lab, tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-m", "kproxy.traffic.responder", "--udp", "7", "--tcp", "80"]
    process = lab["pod"].spawn(command, stdout=subprocess.PIPE)
    assert process.popen is not None
    assert process.popen.stdout is not None
    assert readable(process.popen.stdout.fileno(), 60)
    to = {"echo": "192.0.2.2:7", "tcp": "[2001:db8::2]:80", "icmp": "192.0.2.2"}[kind]
    words = ["--probe", kind, "--seconds", "1", "--rate", "200"]
    code, parameters, measured = send(lab, tmp_path, *words, to=to)
    process.kill()
    process.wait(30)
    process.popen.stdout.close()
    assert (code, measured.sent, measured.received, measured.traffic) == (0, 200, 200, kind)
    assert parameters["measure"]["round_trip"] is True


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--interface", "eth7"], "there is no such interface here (there are: eth0, lo"),
        (["--interface", "eth0", "--to", "192.0.2.1:5"], "is an address of this host"),
        (["--interface", "eth0", "--to", "8.8.8.8:5"], "no route leads there through eth0"),
    ],
)
def test_bad_input_is_one_line(lab: Lab, tmp_path: Path, words: list[str], complaint: str) -> None:
    command = [*KPROXY, "send", "--to", "192.0.2.2:5", "--receiver", "192.0.2.2"]
    command += ["--token", TOKEN, "--out", str(tmp_path), *words]
    done = lab["client"].run(command, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr
    assert not (tmp_path / "result.json").exists()


def test_a_veth_cannot_stamp_so_the_receiver_does_not_start(lab: Lab) -> None:
    command = [*KPROXY, "receive", "--port", "6004", "--control", ":6005", "--interface", "eth0"]
    done = lab["pod"].run([*command, "--timestamps", "hardware"], timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--timestamps hardware: eth0 (driver veth): it cannot stamp arrivals" in done.stderr


def test_stamps_that_the_receiver_does_not_have_are_not_measured_with(
    lab: Lab, receiver: Process, tmp_path: Path
) -> None:
    words = [*KPROXY, "send", "--to", f"192.0.2.2:{PORT}", "--out", str(tmp_path)]
    words += ["--interface", "eth0", "--receiver", "192.0.2.2", "--token", TOKEN]
    done = lab["client"].run([*words, "--timestamps", "hardware"], timeout=60, check=False)
    assert done.returncode == 2
    assert "has software stamps (`kproxy measure receive --timestamps hardware`" in done.stderr
    assert not (tmp_path / "result.json").exists()


def test_killed_at_work_neither_end_leaves_anything(lab: Lab, tmp_path: Path) -> None:
    """Records are in memory, and the generator ends with the command."""
    before = set(Path("/dev/shm").iterdir())
    command = [*KPROXY, "receive", "--port", "6000", "--control", ":6001", "--token", TOKEN]
    far = lab["pod"].spawn(command, stderr=subprocess.PIPE)
    assert far.popen is not None
    assert far.popen.stderr is not None
    assert readable(far.popen.stderr.fileno(), 60)
    words = [*KPROXY, "send", "--to", "192.0.2.2:6000", "--interface", "eth0", "--seconds", "0"]
    words += ["--receiver", "192.0.2.2:6001", "--token", TOKEN, "--out", str(tmp_path)]
    process = lab["client"].spawn(words)
    wait_until(lambda: len(lab["client"].processes()) > 1, 60, "the generator is started")
    process.kill()
    process.wait(30)
    far.kill()
    far.wait(30)
    far.popen.stderr.close()
    wait_until(lambda: not lab["client"].processes(), 60, "the generator has ended")
    assert set(Path("/dev/shm").iterdir()) == before
    assert list(tmp_path.iterdir()) == []
