"""What is wrong with a node, at a glance."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from care_subjects import (
    NOWHERE,
    USR1,
    A,
    B,
    Kernel,
    Tables,
    a_process,
    asks,
    flow,
    no_pauses,
    wanted,
)

from kproxy.errors import KproxyError
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.kernel.counters.conntrack import ConntrackCounters
from kproxy.monitoring.nodecare import asking, look, process, seen
from kproxy.monitoring.nodecare.process import Process
from kproxy.monitoring.nodecare.seen import Place, Wanted

__all__ = ["no_pauses"]


class Proxy:
    """Answers health checks and metrics."""

    def __init__(self, pages: Mapping[str, tuple[int, str]]) -> None:
        self._pages = pages
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.place: tuple[str, int] = ("0.0.0.0", self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                path = connection.recv(4096).decode().split()[1]
                code, text = self._pages[path]
                head = f"HTTP/1.1 {code} X\r\nContent-Length: {len(text.encode())}\r\n\r\n"
                connection.sendall((head + text).encode())

    def close(self) -> None:
        self._socket.close()


METRICS = """# HELP x y
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1000.5
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"} 0
kubeproxy_sync_proxy_rules_service_changes_pending 2
kubeproxy_sync_proxy_rules_endpoint_changes_pending 1
kproxy_watch_resource_version{resource="services"} 41
kproxy_watch_resource_version{resource="endpointslices"} 50
odd{a="b} 7"} 3
broken
"""


def test_metrics_are_read_and_what_is_no_sample_is_left_out() -> None:
    read = asking.parse(METRICS)
    assert asking.sync_facts(read, wall=1002.0) == {
        "last_s": 1.5,
        "pending": 3.0,
        "failures": None,
        "full_syncs": None,
    }
    assert read.of(asking.FOLLOWED, 'resource="endpointslices"') == 50
    assert read.total("odd") == 3
    assert read.total("broken") is None


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    one = Proxy({"/metrics": (200, METRICS), "/livez": (200, "{}"), "/healthz": (503, "taint")})
    yield one
    one.close()


class TestLook:
    """All at a glance."""

    def look(self, place: Place, one: Process | None, want: Any, kernel: Kernel) -> seen.Look:
        doors = look.Doors(
            place=place,
            ask=want,
            differ=kernel,
            conntrack=FakeConntrack([flow(A, 1), flow(B, 2)]),
            table=lambda: ConntrackCounters(entries=95, limit=100),
            opened=Tables(A),
            find=lambda lock: one,
        )
        return look.look(doors, "n1", "ipvs", resync=USR1)

    def test_everything_that_is_wrong_is_told_with_its_cure(self, proxy: Proxy) -> None:
        place = Place(lock="x", healthz=proxy.place, metrics=proxy.place)
        newest = {"services": 42, "endpointslices": 50}
        found = self.look(place, a_process(), _with(newest), Kernel(["a"]))
        assert {one.what: one.cure for one in found.troubles} == {
            "node-leaving": "",
            "drift": "resync-proxy",
            "watch-stale": "restart-proxy",
            "weights-stuck": "heal-weights",
            "conntrack-full": "",
            "flows-stale": "clean-conntrack",
        }
        assert found.watch_stale
        assert found.drift == {"missing": 1, "different": 0, "unexpected": 0}
        assert (found.weights, found.unknown) == ({"stuck": 1, "draining": 0}, {})
        assert b'"healthy":false' in seen.encode(found)

    def test_a_stopped_proxy_is_not_waited_for(self) -> None:
        # Nobody accepts there, but the kernel does: as with a stopped process.
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            at = ("127.0.0.1", deaf.getsockname()[1])
            place = Place(lock="x", healthz=at, metrics=at)
            stopped = a_process(state=process.State.STOPPED)
            found = self.look(place, stopped, asks(wanted(A, B)), Kernel([]))
            deaf.settimeout(0)
            with pytest.raises(BlockingIOError):
                deaf.accept()
        told = {one.what: one.cure for one in found.troubles}
        assert told["proxy-stopped"] == "restart-proxy"
        assert found.watch_stale is None

    def test_a_process_that_is_there_and_does_not_answer_is_silent(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            at = ("127.0.0.1", nobody.getsockname()[1])
        place = Place(lock="x", healthz=at, metrics=at)
        found = self.look(place, a_process(), asks(wanted(A, B)), Kernel([]))
        told = {one.what: one for one in found.troubles}
        assert told["proxy-silent"].cure == "restart-proxy"
        assert told["proxy-silent"].evidence == "/livez: Connection refused"
        assert (found.watch_stale, found.unknown) == (None, {})

    def test_without_an_api_server_the_process_is_seen(self) -> None:
        def away() -> Wanted:
            raise KproxyError("API server: refused")

        found = self.look(NOWHERE, None, away, Kernel([]))
        assert [one.what for one in found.troubles] == ["proxy-absent", "conntrack-full"]
        assert found.unknown == {"wanted": "API server: refused"}
        assert not found.healthy

    def test_nothing_wrong_is_healthy(self) -> None:
        doors = look.Doors(
            place=NOWHERE,
            ask=asks(wanted(A)),
            differ=Kernel([]),
            conntrack=FakeConntrack([flow(A)]),
            table=lambda: ConntrackCounters(entries=1, limit=100),
            opened=Tables(),
            find=lambda lock: a_process(),
        )
        found = look.look(doors, "n1", "ipvs", resync=USR1)
        assert (found.healthy, found.troubles, found.unknown) == (True, (), {})


def _with(newest: Mapping[str, int]) -> Callable[[], Wanted]:
    one = wanted(A)
    return lambda: Wanted(
        node=one.node, mode=one.mode, states=one.states, options=one.options, newest=newest
    )
