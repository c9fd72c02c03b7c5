"""What cares look at, pretended: what is wanted, flows, weights, rules and a process."""

import ipaddress
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from kproxy.backends.base import Deviation, Difference, Options
from kproxy.backends.ipvs.weights import Resting, Weights
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
from kproxy.errors import KernelError
from kproxy.kernel import inet
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.ipvs.types import DestinationKey, ServiceKey
from kproxy.monitoring.nodecare import process
from kproxy.monitoring.nodecare.process import Process
from kproxy.monitoring.nodecare.seen import Place, Wanted

VIP, A, B = "10.96.0.53", "10.1.0.1", "10.1.0.2"
NOWHERE = Place(lock="x", healthz=("127.0.0.1", 0), metrics=("127.0.0.1", 0))
USR1 = signal.SIGUSR1


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def wanted(*addresses: str, mode: str = "ipvs", **options: Any) -> Wanted:
    name = ServicePortName("demo", "dns", "dns", Protocol.UDP)
    known = tuple(Endpoint(address=Address(address), port=5353) for address in addresses)
    one = ServiceState(
        service=ServicePort(name=name, cluster_ip=Address(VIP), port=53), known=known
    )
    state = State(family=Family.IPV4, services={name: one})
    return Wanted(node="n1", mode=mode, states=[state], options=Options(**options))


def asks(*answers: Wanted) -> Callable[[], Wanted]:
    """Return what gives these answers, the last one again and again."""
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def flow(endpoint: str, port: int = 4444) -> Flow:
    ip = ipaddress.ip_address
    source = ip("10.0.0.9")
    return Flow(inet.Protocol.UDP, source, port, ip(VIP), 53, ip(endpoint), 5353, source, port)


SERVICE = ServiceKey(inet.Protocol.UDP, ipaddress.ip_address(VIP), 53)
OWNER = ServicePortName("demo", "dns", "dns", Protocol.UDP)


def resting(address: str) -> Resting:
    return Resting(SERVICE, DestinationKey(ipaddress.ip_address(address), 5353), OWNER, 0)


class Tables:
    """The weights that are 0; one is stuck while its endpoint is wanted."""

    def __init__(self, *zero: str) -> None:
        self.zero = list(zero)
        self.healed: list[str] = []
        self.refuse: KernelError | None = None

    def __call__(self, family: Family, options: Options) -> "Tables":
        return self

    def weights(self, want: State) -> Weights:
        (one,) = want.services.values()
        serving = {endpoint.address for endpoint in one.known}
        stuck = [resting(a) for a in self.zero if a in serving]
        return Weights(stuck, [resting(a) for a in self.zero if a not in serving])

    def heal(self, stuck: Sequence[Resting]) -> list[KernelError | None]:
        for one in stuck:
            if self.refuse is None:
                self.healed.append(str(one.server.address))
                self.zero.remove(str(one.server.address))
        return [self.refuse for _ in stuck]

    def close(self) -> None:
        pass


def difference(name: str = "r") -> Difference:
    return Difference(deviation=Deviation.MISSING, kind="rule", name=name, want="a", have="")


class Kernel:
    """Differs as it is told, look after look; the last answer again and again."""

    def __init__(self, *looks: Sequence[str]) -> None:
        self.looks = [[difference(name) for name in one] for one in looks]

    def __call__(self, want: Wanted) -> Mapping[str, Sequence[Difference]]:
        return {"IPv4": self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]}


def a_process(**fields: Any) -> Process:
    made: dict[str, Any] = {
        "pid": 20,
        "start_time": 1,
        "age_s": 100.0,
        "kind": "kproxy",
        "state": process.State.WAITS,
        "command": ("kproxy", "proxy"),
        "holds_lock": True,
        "catches": frozenset({int(USR1)}),
        **fields,
    }
    return Process(**made)
