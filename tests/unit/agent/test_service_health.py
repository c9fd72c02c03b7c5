"""Health check node ports: what load balancers are told, and where."""

import errno
import io
import json
import socket
from collections.abc import Iterator
from typing import Any

import ports
import pytest

from kproxy.agent.listeners import Listeners
from kproxy.agent.servicehealth import Checked, ServiceHealth, wanted
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    NodePorts,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.logs import Log

LOOPBACK = NodePorts(everywhere=False, addresses=(Address("127.0.0.1"),))


def endpoint(last: int, *, local: bool = True, ready: bool = True) -> Endpoint:
    address = Address(f"10.128.0.{last}")
    return Endpoint(address=address, port=80, local=local, ready=ready, terminating=not ready)


def service(*known: Endpoint, name: str = "web", port: str = "", check: int = 31000) -> Any:
    named = ServicePortName("demo", name, port, Protocol.TCP)
    made = ServicePort(
        name=named,
        cluster_ip=Address("10.96.0.1"),
        port=80,
        external_local=True,
        health_check_node_port=check,
    )
    return named, ServiceState(service=made, known=known)


def state(*services: Any, node_ports: NodePorts = LOOPBACK) -> State:
    return State(family=Family.IPV4, services=dict(services), node_ports=node_ports)


def only(places: dict[Any, Checked]) -> Checked:
    (checked,) = places.values()
    return checked


def test_ready_endpoints_of_this_node_count_each_once() -> None:
    ports = [
        service(endpoint(1), endpoint(2), endpoint(3, local=False), port="http"),
        service(endpoint(1), endpoint(4), port="https"),
    ]
    assert only(wanted(state(*ports))) == Checked("demo", "web", 3)


def test_terminating_endpoints_do_not_count_though_they_serve() -> None:
    assert only(wanted(state(service(endpoint(1, ready=False))))).local_endpoints == 0


def test_ports_are_where_node_ports_are() -> None:
    both = NodePorts(everywhere=False, addresses=(Address("192.0.2.1"), Address("192.0.2.2")))
    found = wanted(state(service(), node_ports=both))
    assert list(found) == [("192.0.2.1", 31000), ("192.0.2.2", 31000)]
    assert list(wanted(state(service(), node_ports=NodePorts()))) == [("0.0.0.0", 31000)]
    six = State(family=Family.IPV6, services=dict([service()]))
    assert list(wanted(six)) == [("::", 31000)]


def test_services_without_such_a_port_have_none() -> None:
    assert wanted(state(service(endpoint(1), check=0))) == {}


@pytest.mark.parametrize(
    ("count", "healthy", "code"), [(2, True, 200), (0, True, 503), (2, False, 503)]
)
def test_answers_are_kube_proxys(count: int, healthy: bool, code: int) -> None:
    answer = Checked("demo", "web", count).answer(healthy=healthy)
    assert answer.code == code
    assert answer.headers == {"X-Load-Balancing-Endpoint-Weight": str(count)}
    assert json.loads(answer.body) == {
        "service": {"namespace": "demo", "name": "web"},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }


class Served:
    """Health checks on loopback, and what is logged and reported."""

    def __init__(self) -> None:
        self.output = io.StringIO()
        self.reports: list[tuple[str, str, str]] = []
        self.healthy = True
        self.listeners = Listeners()
        self.checks = ServiceHealth(
            self.listeners,
            Log("test", stream=self.output),
            healthy=lambda: self.healthy,
            report=lambda *words: self.reports.append(words),
        )

    def warnings(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    yield one
    one.checks.update([state()])


def ask(port: int) -> tuple[int, str]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: n\r\n\r\n")
        answer = b""
        while part := client.recv(4096):
            answer += part
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


def test_many_ports_come_and_go_and_answer_what_is_true_now(served: Served) -> None:
    first, second = ports.unused(), ports.unused()
    web = service(endpoint(1), check=first)
    served.checks.update([state(web, service(name="api", check=second))])
    assert ask(first)[0] == 200
    assert ask(second)[0] == 503
    served.healthy = False
    assert ask(first)[0] == 503
    served.healthy = True
    served.checks.update([state(service(check=first))])
    code, body = ask(first)
    assert (code, json.loads(body)["localEndpoints"]) == (503, 0)
    with pytest.raises(ConnectionRefusedError):
        ask(second)


def test_a_client_that_says_nothing_keeps_nobody_waiting(served: Served) -> None:
    port = ports.unused()
    served.checks.update([state(service(endpoint(1), check=port))])
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port)[0] == 200


def test_a_port_that_is_taken_is_told_with_the_service_and_tried_again(served: Served) -> None:
    class Taken(Listeners):
        taken = True

        def listen(self, address: Any, *, only_ipv6: bool = False) -> socket.socket:
            if self.taken:
                raise OSError(errno.EADDRINUSE, "Address already in use")
            return super().listen(address, only_ipv6=only_ipv6)

    listeners = Taken()
    served.checks._listeners = listeners
    port = ports.unused()
    for count in (1, 2):
        known = [endpoint(last) for last in range(count)]
        served.checks.update([state(service(*known, check=port))])
    (warning,) = served.warnings()
    assert warning["service"] == "demo/web"
    assert served.reports[0][:2] == ("demo", "web")
    listeners.taken = False
    served.checks.update([state(service(endpoint(1), check=port))])
    assert ask(port)[0] == 200


def test_a_successor_takes_the_ports_over_with_the_connections_that_wait(served: Served) -> None:
    port = ports.unused()
    served.checks.update([state(service(endpoint(1), check=port))])
    assert ask(port)[0] == 200
    given = [one.dup() for one in served.listeners.pause()]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
        successor = Served()
        successor.listeners.inherit(given)
        successor.checks.update([state(service(check=port))])
        assert waiting.recv(4096).startswith(b"HTTP/1.1 503 "), "the successor knows of none"
    successor.checks.update([state()])
    served.listeners.resume()
