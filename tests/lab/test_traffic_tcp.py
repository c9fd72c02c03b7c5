"""Real connections over a wire, through the death and the return of their server."""

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import traffic_pair

from kproxy.traffic import profile, records, tcp_accounting
from netns.lab import Lab
from netns.wait import wait_until

pytestmark = pytest.mark.lab
ADDRESS = str(traffic_pair.POD.ip)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with traffic_pair.pair(tmp_path) as found:
        yield found


def tcp_profile(lab: Lab, **changes: Any) -> profile.TcpProfile:
    return profile.TcpProfile(
        record=lab.scratch / "tcp",
        established=(
            profile.Established(
                target=0,
                address=ADDRESS,
                port=traffic_pair.TCP_PORT,
                connections=3,
                interval_s=0.05,
            ),
        ),
        connects=(
            profile.Connects(target=1, address=ADDRESS, port=traffic_pair.TCP_PORT, rate_per_s=50),
        ),
        **changes,
    )


def done(lab: Lab, kind: str, outcome: str) -> list[records.TcpRecord]:
    found = records.read_tcp(lab.scratch / "tcp")
    return [record for record in found if (record.kind, record.outcome) == (kind, outcome)]


def test_requests_and_connections_are_answered(lab: Lab) -> None:
    traffic_pair.responder(lab)
    client = traffic_pair.Generator(lab, "tcp_client")
    client.start(tcp_profile(lab, duration_s=1.0))
    assert set(client.answer()["report"]["outcomes"]) <= {"ok", "unfinished"}
    found = records.read_tcp(lab.scratch / "tcp")
    requests = tcp_accounting.account(found, "request")
    connects = tcp_accounting.account(found, "connect")
    assert requests.failed == connects.failed == requests.reestablished == 0
    assert requests.attempted > 5
    assert connects.attempted > 5
    assert len(connects.connect_ns) == connects.attempted
    answered = {r.pod for r in found if r.kind != "establish" and r.outcome == "ok"}
    assert answered == {"pod-1"}


def test_a_server_dies_and_comes_back(lab: Lab) -> None:
    responder, _ = traffic_pair.responder(lab)
    client = traffic_pair.Generator(lab, "tcp_client")
    client.start(tcp_profile(lab))
    wait_until(lambda: len(done(lab, "request", "ok")) > 10, 30, "requests are answered")
    responder.kill()
    wait_until(lambda: done(lab, "connect", "refused"), 30, "a connection is refused")
    wait_until(lambda: done(lab, "establish", "refused"), 30, "a return is refused")
    traffic_pair.responder(lab)
    returned = 3
    wait_until(
        lambda: sum(1 for r in done(lab, "establish", "ok") if r.seq) == returned,
        30,
        "all connections are there again",
    )
    before = len(done(lab, "request", "ok"))
    wait_until(lambda: len(done(lab, "request", "ok")) > before + 10, 30, "requests are answered")
    client.tell("stop")
    found = records.read_tcp(lab.scratch / "tcp")
    requests = tcp_accounting.account(found, "request")
    assert requests.reestablished == returned
    assert requests.failed == returned
    assert len(requests.outages) == returned
    assert all(outage.failover_ns is not None for outage in requests.outages)
    connects = tcp_accounting.account(found, "connect")
    assert connects.outcomes["refused"] == connects.failed - connects.outcomes.get("reset", 0) - (
        connects.outcomes.get("closed", 0)
    )
    (outage,) = connects.outages
    assert outage.failover_ns is not None


def test_silence_is_a_timeout(lab: Lab) -> None:
    traffic_pair.responder(lab)
    client = traffic_pair.Generator(lab, "tcp_client")
    client.start(tcp_profile(lab, response_timeout_s=0.2, connect_timeout_s=0.3))
    wait_until(lambda: len(done(lab, "request", "ok")) > 10, 30, "requests are answered")
    lab["pod"].run(["ip", "link", "set", "eth0", "down"])
    wait_until(lambda: done(lab, "request", "timeout"), 30, "a request times out")
    wait_until(lambda: done(lab, "connect", "timeout"), 30, "a connection times out")
    lab["pod"].run(["ip", "link", "set", "eth0", "up"])
    wait_until(
        lambda: sum(1 for r in done(lab, "establish", "ok") if r.seq) >= 3, 30, "all are back"
    )
    client.tell("stop")


def test_unfinished_requests_are_set_aside(lab: Lab) -> None:
    traffic_pair.responder(lab)
    client = traffic_pair.Generator(lab, "tcp_client")
    client.start(tcp_profile(lab))
    wait_until(lambda: len(done(lab, "request", "ok")) > 10, 30, "requests are answered")
    lab["pod"].run(["ip", "link", "set", "eth0", "down"])
    before = len(done(lab, "request", "ok"))
    mark = client.tell("mark", name="down")
    assert mark["sent"] >= before
    client.tell("stop")
    found = tcp_accounting.account(records.read_tcp(lab.scratch / "tcp"), "request")
    assert found.failed == 0


def test_bulk_is_confirmed_block_by_block(lab: Lab) -> None:
    """Also blocks that no socket buffer takes in one piece."""
    traffic_pair.responder(lab)
    lab["client"].run(["sysctl", "-w", "net.ipv4.tcp_wmem=4096 8192 8192"])
    client = traffic_pair.Generator(lab, "tcp_client")
    bulk = profile.Established(
        target=3,
        address=ADDRESS,
        port=traffic_pair.TCP_PORT,
        connections=2,
        interval_s=0.02,
        bulk_bytes=profile.MOST_BULK_BYTES,
    )
    wanted = dataclasses.replace(tcp_profile(lab, duration_s=1.0), established=(bulk,))
    client.start(wanted)
    assert set(client.answer()["report"]["outcomes"]) <= {"ok", "unfinished"}
    found = [r for r in records.read_tcp(lab.scratch / "tcp") if r.kind == "request"]
    blocks = tcp_accounting.account(found, "request")
    assert blocks.failed == 0
    assert blocks.attempted > 10
    assert {(r.target, r.pod) for r in found if r.outcome == "ok"} == {(3, "pod-1")}


def test_sctp_where_the_kernel_has_it(lab: Lab) -> None:
    traffic_pair.responder(lab)
    client = traffic_pair.Generator(lab, "tcp_client")
    wanted = tcp_profile(lab, duration_s=1.0)
    (kept,), (fresh,) = wanted.established, wanted.connects
    kept = dataclasses.replace(kept, protocol=profile.Protocol.SCTP, port=9000)
    fresh = dataclasses.replace(fresh, protocol=profile.Protocol.SCTP, port=9000)
    wanted = dataclasses.replace(wanted, established=(kept,), connects=(fresh,))
    with lab["client"].entered():
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
        except OSError:
            client.start(wanted)
            # Each attempt fails, and none of them ends the client.
            assert set(client.answer()["report"]["outcomes"]) == {"error"}
            return
    command = [*traffic_pair.RESPONDER, "--name", "pod-1", "--sctp", "9000"]
    traffic_pair.Speaker(lab, "pod", command)
    client.start(wanted)
    assert set(client.answer()["report"]["outcomes"]) <= {"ok", "unfinished"}
    found = records.read_tcp(lab.scratch / "tcp")
    for kind in ("request", "connect"):
        account = tcp_accounting.account(found, kind)
        assert account.failed == 0
        assert account.attempted > 5
