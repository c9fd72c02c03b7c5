"""Real packets over a wire: what the generator sent is what the accounts find."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import traffic_pair

from kproxy.traffic import records, wire
from netns.lab import Lab
from netns.wait import wait_until

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with traffic_pair.pair(tmp_path) as found:
        yield found


@pytest.mark.parametrize("rate", [1000.0, 10000.0])
def test_all_that_is_sent_arrives(lab: Lab, rate: float) -> None:
    _, record = traffic_pair.responder(lab, "--rate", "10000")
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab, rate_pps=rate, duration_s=1.0))
    report = sender.answer()["report"]
    assert report["planned"] == report["sent"] == rate
    traffic_pair.settled(record, int(rate))
    found = traffic_pair.account(lab, record, rate=rate)
    assert found.total("sent") == found.total("received") == rate
    assert found.total("lost") == found.total("duplicated") == found.total("reordered") == 0
    assert found.strangers == 0
    assert [flow.pod_before for flow in found.flows] == ["pod-1"] * traffic_pair.FLOWS
    received, state = records.read_received(record, 1)
    assert state.drops == 0
    delays = [packet.received_ns - packet.sent_ns for packet in received]
    assert min(delays) > -state.clock_error_ns
    assert max(delays) < 3_000_000_000


def test_the_kernel_accepts_the_patched_checksums_of_ipv6(lab: Lab) -> None:
    _, record = traffic_pair.responder(lab)
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab, version=6, duration_s=0.5))
    assert sender.answer()["report"]["sent"] == 500
    traffic_pair.settled(record, 500)
    assert traffic_pair.account(lab, record).total("received") == 500


@pytest.mark.needs_tool("iptables")
def test_a_counted_number_of_drops_is_found_exactly(lab: Lab) -> None:
    _, record = traffic_pair.responder(lab)
    rule = ["-p", "udp", "--dport", str(traffic_pair.UDP_PORT)]
    rule += ["-m", "statistic", "--mode", "nth", "--every", "7", "--packet", "0", "-j", "DROP"]
    iptables = traffic_pair.iptables(lab)
    lab["pod"].run([iptables, "-A", "INPUT", *rule])
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab, duration_s=2.0))
    assert sender.answer()["report"]["sent"] == 2000
    listing = lab["pod"].run([iptables, "-L", "INPUT", "-v", "-x", "-n"]).stdout
    (line,) = [text for text in listing.splitlines() if "DROP" in text and "statistic" in text]
    dropped = int(line.split()[0])
    assert dropped in (2000 // 7, 2000 // 7 + 1)
    traffic_pair.settled(record, 2000 - dropped)
    found = traffic_pair.account(lab, record)
    assert found.total("lost") == dropped
    assert found.total("received") == 2000 - dropped


def test_a_killed_responder_keeps_its_records(lab: Lab) -> None:
    responder, record = traffic_pair.responder(lab)
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab))
    traffic_pair.settled(record, 500)
    responder.kill()
    responder.wait(10)
    killed = time.monotonic_ns()
    kept, state = records.read_received(record, 1)
    assert state.pod == "pod-1"
    assert len(kept) >= 500
    sender.tell("stop")
    found = traffic_pair.account(lab, record)
    assert found.total("received") == len(kept)
    assert found.total("lost") == found.total("sent") - len(kept)
    last = max(packet.sent_ns for packet in kept)
    assert last < killed


def test_a_stalled_receiver_delays_but_does_not_lose(lab: Lab) -> None:
    responder, record = traffic_pair.responder(lab)
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab, rate_pps=5000.0, duration_s=1.5))
    traffic_pair.settled(record, 500)
    responder.signal(signal.SIGSTOP)
    report = sender.answer()["report"]
    assert len(records.read_received(record, 1)[0]) < report["sent"]
    responder.signal(signal.SIGCONT)
    traffic_pair.settled(record, report["sent"])
    found = traffic_pair.account(lab, record, rate=5000.0)
    assert found.total("lost") == 0
    assert records.read_received(record, 1)[1].drops == 0


def test_drops_at_the_socket_are_counted(lab: Lab) -> None:
    """A buffer for far less than what comes: the losses are the tester's own, and it says so."""
    responder, record = traffic_pair.responder(lab, "--rate", "1")
    sender = traffic_pair.Generator(lab, "udp_send")
    responder.signal(signal.SIGSTOP)
    sender.start(traffic_pair.udp_profile(lab, rate_pps=10000.0, duration_s=1.0))
    report = sender.answer()["report"]
    responder.signal(signal.SIGCONT)
    # When it has been quiet for a moment, the responder writes down what the kernel dropped.
    wait_until(lambda: records.read_received(record, 1)[1].drops > 0, 30, "drops are written")
    received, state = records.read_received(record, 1)
    assert state.drops == report["sent"] - len(received)


def test_a_stalled_sender_counts_what_it_did_not_send(lab: Lab) -> None:
    _, record = traffic_pair.responder(lab)
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab, catch_up_packets=100))
    traffic_pair.settled(record, 200)
    sender.process.signal(signal.SIGSTOP)
    time.sleep(0.6)  # the stall itself
    sender.process.signal(signal.SIGCONT)
    report = sender.tell("stop")["report"]
    assert report["not_sent"] >= 400
    assert report["late"] >= 50
    assert report["planned"] == report["sent"] + report["not_sent"]
    traffic_pair.settled(record, report["sent"])
    found = traffic_pair.account(lab, record)
    assert found.total("not_sent") == report["not_sent"]
    assert found.total("sent") == found.total("received") == report["sent"]
    assert found.total("lost") == 0


def test_a_dead_link_is_the_senders_failure_and_no_loss(lab: Lab) -> None:
    _, record = traffic_pair.responder(lab)
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab))
    traffic_pair.settled(record, 100)
    lab["client"].run(["ip", "link", "set", "eth0", "down"])
    wait_until(
        lambda: any(
            p.status == records.STATUS_FAILED for p in records.read_sent(lab.scratch / "sent")
        ),
        30,
        "a send fails",
    )
    report = sender.tell("stop")["report"]
    assert report["failed"].get("Network is down", 0) > 0
    traffic_pair.settled(record, report["sent"])
    found = traffic_pair.account(lab, record)
    assert found.total("lost") == 0
    assert found.total("failed") == sum(report["failed"].values())


def test_one_process_takes_one_start_after_the_other(lab: Lab) -> None:
    _, record = traffic_pair.responder(lab)
    sender = traffic_pair.Generator(lab, "udp_send")
    assert sender.tell("stop") == {"event": "stopped", "report": None}
    assert sender.tell("dance")["event"] == "error"
    assert "No such file" in sender.tell("start", profile="/nowhere")["message"]
    wrong = traffic_pair.udp_profile(lab, interface="eth9")
    assert "interface 'eth9': No such device" in sender.start(wrong)["message"]
    for trial in (1, 2):
        wanted = traffic_pair.udp_profile(lab, trial=trial, duration_s=0.2)
        assert sender.start(wanted)["trial"] == trial
        assert sender.answer()["report"]["sent"] == 200
    wait_until(lambda: len(records.read_received(record, 2)[0]) == 200, 30, "trial 2 arrives")
    assert len(records.read_received(record, 1)[0]) == 200


def test_it_ends_with_its_input(lab: Lab) -> None:
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab))
    assert sender.process.popen is not None
    assert sender.process.popen.stdin is not None
    sender.process.popen.stdin.close()
    assert sender.answer()["event"] == "stopped"
    assert sender.process.wait(10) == 0


def test_other_datagrams_and_probes_that_ask_are_echoed(lab: Lab) -> None:
    _, record = traffic_pair.responder(lab)
    with lab["client"].entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(10)
        client.connect((str(traffic_pair.POD.ip), traffic_pair.UDP_PORT))
        probe = wire.header(1, 5, seq=0, sent_ns=1)
        asking = wire.header(1, 5, seq=1, sent_ns=2, flags=wire.FLAG_ECHO) + b"x" * 500
        for datagram in (b"", b"kpx1", b"hello", b"z" * 1400):
            client.send(datagram)
            assert client.recv(4096) == datagram
        client.send(probe)
        client.send(asking)
        assert client.recv(4096) == asking
    assert [p.seq for p in records.read_received(record, 1)[0]] == [0, 1]
