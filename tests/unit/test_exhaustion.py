"""Servers that have run out of descriptors wait, instead of trying again at once for ever."""

import errno
import http.client
import socket
from typing import Any

import pytest

from kproxy import exhaustion, healthhttp
from kproxy.controlplane import kubeletserver
from kproxy.lab import pager
from kproxy.lab.dashboard import server as dashboard
from kproxy.lab.door.owner import Keeper
from kproxy.traffic import webserver
from kproxy.traffic.remote.receiver import Place, Receiver

PATIENCE_S = 30.0


class Exhausted:
    """A socket that accepts nobody at first."""

    def __init__(self, real: socket.socket, *numbers: int) -> None:
        self._real = real
        self._errors = list(numbers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def accept(self) -> tuple[socket.socket, Any]:
        if self._errors:
            raise OSError(self._errors.pop(), "no")
        return self._real.accept()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return how long was waited, each time."""
    waited: list[float] = []
    monkeypatch.setattr(exhaustion, "time", Sleeping(waited))
    return waited


class Sleeping:
    """A clock that nobody waits for."""

    def __init__(self, waited: list[float]) -> None:
        self.sleep = waited.append


@pytest.mark.parametrize(("number", "count"), [(errno.EMFILE, 2), (errno.ECONNABORTED, 0)])
def test_health_is_told_after_a_wait(waits: list[float], number: int, count: int) -> None:
    served = healthhttp.HealthServer("127.0.0.1:0", {"/healthz": lambda: (200, "ok")})
    assert served._server is not None
    stand_in: Any = Exhausted(served._server.socket, number, number)
    served._server.socket = stand_in
    with served:
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
        client.request("GET", "/healthz")
        assert client.getresponse().status == 200
        client.close()
    assert waits == [exhaustion.EXHAUSTED_S] * count


@pytest.mark.parametrize(
    "kind",
    [
        healthhttp._Server,
        kubeletserver.Server,
        pager.Server,
        dashboard.Server,
        webserver.Server,
    ],
    ids=lambda kind: kind.__module__,
)
def test_every_server_waits(waits: list[float], kind: Any) -> None:
    server = object.__new__(kind)
    server.socket = Exhausted(socket.socket(), errno.ENFILE)
    with pytest.raises(OSError, match="no"):
        server.get_request()
    assert waits == [exhaustion.EXHAUSTED_S]
    server.socket.close()


def test_a_receiver_of_measurements_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Waited(Exception):
        """It has waited."""

    class Ending:
        def sleep(self, seconds: float) -> None:
            raise Waited(seconds)

    monkeypatch.setattr(exhaustion, "time", Ending())
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        stand_in: Any = Exhausted(listener, errno.EMFILE, errno.ECONNABORTED)
        place = Place(name="far", port=0, most_packets=1, card=None)
        with pytest.raises(Waited):
            Receiver(place, "a secret", stand_in, lambda text: None).serve()


def test_a_lab_does_not_end_because_one_more_cannot_come_in(waits: list[float]) -> None:
    nowhere: Any = None
    keeper = Keeper(nowhere, progress=lambda text: None, ready=lambda report: None)
    with socket.socket() as listener:
        stand_in: Any = Exhausted(listener, errno.EMFILE)
        keeper._accept(stand_in)
    assert (waits, keeper._clients) == ([exhaustion.EXHAUSTED_S], {})
