"""Two services that claim the same address, protocol and port."""

import msgspec
import pytest
from fake_node import FakeNode, wanted, web

from kproxy.desired.model import Protocol, ServicePortName, ServiceState

A, B = "10.128.0.1", "10.128.0.2"


def named(service: ServiceState, name: ServicePortName) -> ServiceState:
    return msgspec.structs.replace(
        service, service=msgspec.structs.replace(service.service, name=name)
    )


@pytest.mark.parametrize("mode", ["ipvs", "iptables", "nftables"])
def test_the_first_by_name_has_it_and_the_other_is_told(mode: str) -> None:
    node = FakeNode()
    backend = node.backend(mode)
    first = named(web(A), ServicePortName("demo", "a", "http", Protocol.TCP))
    second = named(web(B), ServicePortName("demo", "b", "http", Protocol.TCP))
    again = named(web(B), ServicePortName("demo", "a", "web", Protocol.TCP))
    result = backend.sync(wanted(second, first, again))
    assert result.failures == ()
    assert [str(problem) for problem in result.invalid] == [
        "Service demo/a: spec.ports['web']: TCP 10.96.0.10:80 belongs to Service demo/a:http"
        " already (give one of them another address or port)",
        "Service demo/b: spec.clusterIP: TCP 10.96.0.10:80 belongs to Service demo/a:http"
        " already (give one of them another address or port)",
    ]
    assert A in str(node.contents())
    assert B not in str(node.contents())
    assert backend.sync(wanted(second)).invalid == ()
    assert B in str(node.contents())
