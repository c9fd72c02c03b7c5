"""What cares do when things change while they look: nothing that is healthy is touched."""

import ipaddress
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from kproxy.errors import KernelError, KproxyError
from kproxy.kernel import inet
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.counters.conntrack import ConntrackCounters
from kproxy.kernel.ipvs.types import DestinationKey, ServiceKey
from kproxy.monitoring.nodecare import asking, flows, look, process, resync, seen, weights
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


class TestCleanConntrack:
    """Flows."""

    def test_only_what_leads_nowhere_goes(self) -> None:
        table = FakeConntrack([flow(A, 1), flow(B, 2)])
        done = flows.clean(table, asks(wanted(A)))
        assert (len(done.found), len(done.done), done.good) == (1, 1, True)
        assert table.table == [flow(A, 1)]

    def test_a_dry_run_deletes_nothing(self) -> None:
        table = FakeConntrack([flow(B)])
        done = flows.clean(table, asks(wanted(A)), dry_run=True)
        assert (len(done.done), done.good) == (1, False)
        assert table.table == [flow(B)]

    def test_an_endpoint_that_comes_meanwhile_keeps_its_flows(self) -> None:
        table = FakeConntrack([flow(B)])
        done = flows.clean(table, asks(wanted(A), wanted(A, B)))
        assert (done.done, done.good) == ((), True)
        assert table.table == [flow(B)]

    def test_a_flow_that_has_ended_by_itself_is_no_failure(self) -> None:
        table = FakeConntrack([flow(B)])
        table.fail_delete = {0: 2}
        done = flows.clean(table, asks(wanted(A)), pause=table.table.clear)
        assert done.good

    def test_what_the_kernel_refuses_is_left_and_told(self) -> None:
        table = FakeConntrack([flow(B)])
        table.fail_delete = {0: 1}
        done = flows.clean(table, asks(wanted(A)))
        assert not done.good
        assert "forget the flow" in done.left[0]

    def test_flows_that_come_back_are_the_rules_fault(self) -> None:
        table = FakeConntrack([flow(B)])
        done = flows.clean(table, asks(wanted(A)), pause=lambda: table.table.append(flow(B)))
        assert not done.good
        assert "restart-proxy" in done.refused

    @pytest.mark.parametrize(
        ("mode", "clean_last", "count"),
        [("ipvs", False, 1), ("iptables", False, 0), ("iptables", True, 1)],
    )
    def test_without_any_endpoint_a_proxy_decides_by_its_mode(
        self, mode: str, clean_last: bool, count: int
    ) -> None:
        table = FakeConntrack([flow(B)])
        nobody = wanted(mode=mode, clean_last=clean_last)
        assert len(flows.stale(table, nobody)) == count


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


class TestHealWeights:
    """Real servers."""

    def test_stuck_ones_are_healed_and_the_others_drain_on(self) -> None:
        tables = Tables(A, B)
        done = weights.heal(asks(wanted(A)), opened=tables)
        assert (tables.healed, done.good) == ([A], True)
        assert tables.zero == [B]

    def test_a_dry_run_heals_nothing(self) -> None:
        tables = Tables(A)
        assert weights.heal(asks(wanted(A)), opened=tables, dry_run=True).done
        assert tables.healed == []

    def test_one_that_leaves_meanwhile_drains_on(self) -> None:
        tables = Tables(A)
        done = weights.heal(asks(wanted(A), wanted(B)), opened=tables)
        assert (tables.healed, done.good) == ([], True)

    def test_one_that_comes_to_rest_meanwhile_is_for_the_next_time(self) -> None:
        tables = Tables(A, B)
        done = weights.heal(asks(wanted(A), wanted(A, B)), opened=tables)
        assert tables.healed == [A]
        assert not done.good
        assert B in done.left[0]

    def test_what_the_kernel_refuses_is_left_and_told(self) -> None:
        tables = Tables(A)
        tables.refuse = KernelError("set", 1, "refused")
        done = weights.heal(asks(wanted(A)), opened=tables)
        assert not done.good
        assert "refused" in done.left[0]

    def test_other_modes_have_no_weights(self) -> None:
        done = weights.heal(asks(wanted(A, mode="nftables")), opened=Tables(A))
        assert "no weights" in done.refused


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


class TestResync:
    """A full sync."""

    def run(self, kernel: Kernel, one: Process | None = None, **more: Any) -> seen.Care:
        self.sent: list[int] = []

        def send(_: Process, number: int) -> bool:
            self.sent.append(number)
            return True

        return resync.resync(
            NOWHERE,
            asks(wanted(A)),
            kernel,
            number=USR1,
            within_s=0.0,
            find=lambda lock: one,
            send=send,
            **more,
        )

    def test_what_passes_is_no_reason_to_ask(self) -> None:
        done = self.run(Kernel(["a"], []), a_process())
        assert (done.found, done.good, self.sent) == ((), True, [])

    def test_what_lasts_is_repaired(self) -> None:
        done = self.run(Kernel(["a", "b"], ["b"], []), a_process())
        assert (done.found, self.sent) == (("missing rule b",), [USR1])
        assert (done.left, done.refused) == ((), "")

    def test_a_dry_run_sends_nothing(self) -> None:
        done = self.run(Kernel(["a"]), a_process(), dry_run=True)
        assert (done.done, done.good, self.sent) == (("SIGUSR1 to process 20",), False, [])

    @pytest.mark.parametrize(
        ("one", "reason"),
        [
            (None, "no proxy runs"),
            (a_process(kind="kube-proxy"), "kube-proxy (process 20) cannot be asked"),
            (a_process(state=process.State.STOPPED), "is stopped"),
            (a_process(state=process.State.ZOMBIE), "is zombie"),
            (a_process(catches=frozenset()), "does not listen to the request yet"),
        ],
    )
    def test_who_cannot_be_asked_is_not(self, one: Process | None, reason: str) -> None:
        done = self.run(Kernel(["a"]), one)
        assert reason in done.refused
        assert "restart-proxy" in done.refused
        assert (self.sent, done.good) == ([], False)

    def test_many_differences_are_counted(self) -> None:
        done = self.run(Kernel([f"{number:03}" for number in range(100)]), None)
        assert done.found[-1] == "… and 80 more"


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
