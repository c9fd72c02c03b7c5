"""A flow that is tracked just after stale ones were looked for is gone a moment later.

That is what a packet leaves which the rules before have translated, and which was still under way.
"""

import ipaddress
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kproxy.backends.base import Options, loader
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.kernel import inet
from kproxy.kernel.conntrack.client import Conntrack

pytestmark = [pytest.mark.kernel, pytest.mark.needs_tool("conntrack")]

VIP, HEALTHY, GONE = "10.96.0.53", "10.128.0.1", "10.128.1.2"
CLIENT = "10.128.0.99"
EVERY_MODE = pytest.mark.parametrize(
    "mode",
    [
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
        "iptables",
        "nftables",
    ],
)


def state(*endpoints: str) -> State:
    name = ServicePortName("demo", "dns", "dns", Protocol.UDP)
    service = ServicePort(name=name, cluster_ip=Address(VIP), port=53)
    known = tuple(Endpoint(address=Address(one), port=5353) for one in endpoints)
    one = ServiceState(service=service, cluster=known, known=known, anywhere=bool(known))
    return State(family=Family.IPV4, services={name: one})


class Kernel:
    """A mode on the kernel of this namespace, and what the kernel tracks."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.table = Conntrack()
        self._backends: list[Any] = []

    def backend(self, *, clean_last: bool = False) -> Any:
        made = loader(self.mode)(Family.IPV4, Options(clean_last=clean_last))
        if why := made.supported():
            made.close()
            pytest.skip(f"needs a kernel that can: {why}")
        self._backends.append(made)
        return made

    def track(self, endpoint: str, source_port: int) -> None:
        """Let the kernel track a flow from a client to the service, led to an endpoint."""
        command = (
            f"conntrack -I -p udp -t 60 -s {CLIENT} -d {VIP} --sport {source_port} --dport 53"
            f" -r {endpoint} -q {CLIENT} --reply-port-src 5353 --reply-port-dst {source_port}"
        )
        subprocess.run(command.split(), check=True, capture_output=True)

    def tracked(self) -> list[str]:
        """Return which endpoints flows to the service are led to."""
        return sorted(
            str(flow.reply_source)
            for flow in self.table.flows(inet.Family.IPV4)
            if flow.destination == ipaddress.ip_address(VIP)
        )

    def close(self) -> None:
        for one in (self.table, *self._backends):
            one.close()


@pytest.fixture
def kernel(mode: str, namespace: None) -> Iterator[Kernel]:
    made = Kernel(mode)
    yield made
    made.close()


@EVERY_MODE
def test_a_straggler_goes_when_it_is_looked_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = kernel.backend()
    backend.sync(state(HEALTHY, GONE))
    with monkeypatch.context() as still:  # a slow machine may take long for this
        at = time.monotonic()
        still.setattr(time, "monotonic", lambda: at)
        result = backend.sync(state(HEALTHY))
        kernel.track(HEALTHY, 4001)
        kernel.track(GONE, 4002)
        assert backend.sync(state(HEALTHY)).swept is None, "it is not time yet"
    assert kernel.tracked() == [HEALTHY, GONE]
    time.sleep(result.flows_again_in)  # nothing happens before the backend is asked again
    assert backend.sync(state(HEALTHY)).writes == 1
    assert kernel.tracked() == [HEALTHY]


@EVERY_MODE
def test_an_endpoint_that_is_back_keeps_its_flows(kernel: Kernel) -> None:
    backend = kernel.backend()
    backend.sync(state(HEALTHY, GONE))
    result = backend.sync(state(HEALTHY))
    backend.sync(state(HEALTHY, GONE))
    kernel.track(GONE, 4002)
    time.sleep(result.flows_again_in)  # so, too, for what must not happen
    backend.sync(state(HEALTHY, GONE))
    assert kernel.tracked() == [GONE]


@pytest.mark.parametrize("clean_last", [False, True])
@EVERY_MODE
def test_flows_of_the_last_endpoint(kernel: Kernel, clean_last: bool) -> None:
    backend = kernel.backend(clean_last=clean_last)
    backend.sync(state(GONE))
    result = backend.sync(state())
    kernel.track(GONE, 4002)
    ended = clean_last or kernel.mode == "ipvs"
    assert (result.flows_again_in is not None) == ended
    time.sleep(result.flows_again_in or 0)  # nothing happens before the backend is asked again
    backend.sync(state())
    assert kernel.tracked() == ([] if ended else [GONE])
