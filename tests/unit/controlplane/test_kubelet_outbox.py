"""The kubelet's outbox: the newest report of each pod, tried until it is through."""

import io
import threading

from kproxy import errors, logs
from kproxy.controlplane.outbox import Outbox, Report


class Server:
    """Remembers what it was told, and refuses while ``away``."""

    def __init__(self) -> None:
        self.away = False
        self.error: errors.KproxyError | None = None
        self.told: list[tuple[str, object]] = []
        self.heard = threading.Event()

    def update_status(self, kind, obj):
        if self.away:
            raise errors.KproxyError("unreachable")
        if self.error:
            raise self.error
        self.told.append((obj["metadata"]["uid"], obj["status"]["n"]))
        self.heard.set()

    def delete(self, kind, namespace, name, *, grace=None, uid=""):
        self.told.append((uid, grace))


def report(uid: str, number: int | None) -> Report:
    status = None if number is None else {"n": number}
    return Report(namespace="d", name=uid, uid=uid, status=status)


def outbox(server: Server) -> Outbox:
    return Outbox(server, logs.Log("kubelet", stream=io.StringIO()))


def test_only_the_newest_report_of_a_pod_is_sent_once():
    server = Server()
    box = outbox(server)
    for number in (1, 2, 3):
        box.put(report("a", number))
    box.put(report("b", 1))
    assert box.flush() is None
    assert box.flush() is None
    assert server.told == [("a", 3), ("b", 1)]


def test_the_last_report_deletes_for_good():
    server = Server()
    box = outbox(server)
    box.put(report("a", 1))
    box.put(report("a", None))
    box.flush()
    assert server.told == [("a", 0)]


def test_a_failed_report_is_kept_and_waits_longer_each_time_up_to_2_s():
    server = Server()
    server.away = True
    box = outbox(server)
    box.put(report("a", 1))
    waits = [box.flush() for _ in range(10)]
    assert waits[:3] == [0.05, 0.1, 0.2]
    assert waits[-1] == 2.0
    server.away = False
    box.flush()
    assert server.told == [("a", 1)]


def test_a_report_of_a_pod_that_is_gone_is_dropped():
    server = Server()
    server.error = errors.ApiError(404, "NotFound", "no such pod")
    box = outbox(server)
    box.put(report("a", 1))
    assert box.flush() is None
    server.error = None
    box.flush()
    assert server.told == []


def test_the_thread_sends_and_ends():
    server = Server()
    box = outbox(server)
    thread = threading.Thread(target=box.run)
    thread.start()
    box.put(report("a", 1))
    assert server.heard.wait(60)
    box.stop()
    thread.join(60)
    assert not thread.is_alive()
