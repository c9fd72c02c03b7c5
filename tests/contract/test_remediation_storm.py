"""A storm of notifications on the real receiver, over HTTP, while it is killed again and again."""

import http.client
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from remediation_process import TOKEN, Receiver, alert, api, body, receiver

from kproxy.monitoring.remediation import journal
from kproxy.monitoring.remediation.records import Began, Ended, Notified, Result, Said, Started

SENDERS = 16


def half(port: int, part: bytes) -> None:
    """Begin a request and go away, or stay silent until the receiver loses patience."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
            one.sendall(part)
            one.settimeout(60)
            one.recv(1000)
    except OSError:
        pass  # The receiver was killed meanwhile.


def rough(one: Receiver, starts: float) -> list[Callable[[], object]]:
    """Return what strangers and broken senders do."""

    def send(data: bytes, token: str) -> None:
        try:
            status, _ = one.ask("/alerts", data, token=token)
        except (OSError, http.client.HTTPException):
            return  # The receiver was killed meanwhile.
        assert status in (400, 401, 408, 503)  # 408: this machine is busy

    forged = [body(f"forged{i}", alert(f"forged{i}", starts)) for i in range(20)]
    broken = [b"{", b"[]", body("x", {"status": "firing"}), b'{"version":"9"}', b"\xff" * 1000]
    head = f"POST /alerts HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 500\r\n\r\n"
    parts = [b"POST /al", head.encode(), head.encode() + forged[0][:100], b""]
    return [
        *(partial(send, data, "") for data in forged),
        *(partial(send, data, TOKEN + "x") for data in forged),
        *(partial(send, data, TOKEN) for data in broken * 2),
        *(partial(half, one.port, part) for part in parts),
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_with_kills(tmp_path: Path, seed: int) -> None:
    lots, starts = random.Random(seed), time.time()
    lasting = [f"lasting{i}" for i in range(100)]
    healed = [f"healed{i}" for i in range(100, 160)]
    early = [f"early{i}" for i in range(160, 200)]
    # 200 at once: those that last, those that will be over, and those that are already.
    everything = [
        *(alert(name, starts) for name in lasting + healed),
        *(alert(name, starts, firing=False) for name in early),
    ]
    sends: list[tuple[str, bytes]] = [("all at once", body("all at once", *everything))]
    for number in range(150):
        group = f"group{number}"
        some = [alert(name, starts) for name in lots.sample(lasting + healed + early, 4)]
        some += [alert(name, starts, firing=False) for name in lots.sample(healed + early, 2)]
        some += [alert(lots.choice(lasting), starts - 60)]  # replayed: an instance before
        lots.shuffle(some)
        sends.append((group, body(group, *some)))
    with api() as (server, events), receiver(tmp_path, server) as one:
        one.deliver("first", body("first", *(alert(n, starts, firing=False) for n in early)))
        jobs: list[Callable[[], object]]
        jobs = [*(partial(one.deliver, *send) for send in sends), *rough(one, starts)]
        lots.shuffle(jobs)
        with ThreadPoolExecutor(SENDERS) as pool:
            futures = [pool.submit(job) for job in jobs]
            for kill in range(1, 4):
                await_lines(one, 20 * kill)
                one.end(signal.SIGKILL)
                one.start()
            for future in futures:
                future.result()
        one.await_metric(_is_idle)
        one.end(signal.SIGTERM)
        assert one.process is not None
        assert one.process.returncode == 0
    judge(one, lasting, early, events, sent=["first", *(group for group, _ in sends)])


def judge(
    one: Receiver,
    lasting: list[str],
    early: list[str],
    events: list[dict[str, Any]],
    *,
    sent: list[str],
) -> None:
    records = list(journal.read(one.directory / "journal"))
    log = one.log
    began = [name for what, name, _ in log if what == "begin"]
    open_now = ""
    for what, name, _ in log:
        # What was killed in the middle has no end, and nothing begins before that was looked at.
        assert what == "begin" or name == open_now, "two ran at once"
        open_now = name if what == "begin" else ""
    assert not set(began) & set(early), "what was over before it began was repaired"
    assert not [name for name in began if name.startswith("forged")]
    # Those killed between the journal and the action did not run; they are verified all the same.
    written = [record.instance for record in records if isinstance(record, Began)]
    assert len(written) == len(set(written))
    ended = Counter(record.instance for record in records if isinstance(record, Ended))
    assert set(ended.values()) <= {1}
    assert set(written) <= set(ended)
    # What is replayed before the alert itself is heard of is an instance of its own.
    about = Counter(name.partition("@")[0].removeprefix("of-") for name in written)
    assert Counter(began) <= about, "an action ran twice"
    assert set(lasting) <= set(about), "something was forgotten"
    notified = [record for record in records if isinstance(record, Notified)]
    assert set(sent) == set(one.accepted)
    assert set(one.accepted) <= {record.group_key for record in notified}, (
        "the audit log lacks one"
    )
    heard = {seen.labels["trouble"] for record in notified for seen in record.alerts}
    assert not [name for name in heard if name.startswith("forged")]
    said = Counter(seen.said for record in notified for seen in record.alerts)
    assert {Said.TAKEN, Said.REPEATED, Said.LATE, Said.STALE, Said.RESOLVED_UNSEEN} <= set(said)
    assert sum(isinstance(record, Started) for record in records) == 4
    assert {event["reason"] for event in events} >= {"RemediationBegan", "RemediationHelped"}
    assert events[0]["regarding"]["uid"] == f"uid-of-{events[0]['regarding']['name']}"


def _is_idle(metrics: dict[str, float]) -> bool:
    names = ("kproxy_remediation_queue_length", "kproxy_remediation_busy")
    return [metrics[name] for name in names] == [0.0, 0.0]


def await_lines(one: Receiver, count: int) -> None:
    one.until(lambda: len(one.log) >= count, f"{count} lines of the action", interval=0.005)


def test_nothing_is_repaired_where_too_many_nodes_are_unwell(tmp_path: Path) -> None:
    many = [alert(f"trouble{i}", time.time()) for i in range(300)]
    with api() as (server, _), receiver(tmp_path, server) as one:
        one.deliver("g", body("g", *many))
        one.await_metric(
            lambda found: (
                found.get(
                    'kproxy_remediation_refusals_total{action="mend",reason="too-many-unwell"}', 0
                )
                >= 300
            )
        )
        assert one.log == []


def test_without_an_api_server_it_repairs_all_the_same(tmp_path: Path) -> None:
    with receiver(tmp_path, "http://127.0.0.1:1") as one:
        one.deliver("g", body("g", alert("lonely1", time.time())))
        one.await_metric(
            lambda found: (
                found['kproxy_remediation_actions_total{action="mend",result="helped"}'] == 1
            )
        )
        assert [line[0] for line in one.log] == ["begin", "end"]
        results = [r.result for r in journal.read(tmp_path / "journal") if isinstance(r, Ended)]
        assert results == [Result.HELPED]
