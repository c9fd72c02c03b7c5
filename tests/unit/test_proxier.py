import errno
from typing import Any

import pytest

from kproxy.api import core, discovery
from kproxy.api.meta import ObjectMeta
from kproxy.backends.base import SyncResult
from kproxy.desired.build import NodeSettings
from kproxy.desired.model import Family, State
from kproxy.errors import KernelError, Unsupported
from kproxy.proxier import DualStack, Proxier


class Recorder:
    """A backend that notes what it is given, and fails when told to."""

    name = "recorder"

    def __init__(self, family: Family) -> None:
        self.family = family
        self.states: list[State] = []
        self.read = 0
        self.error: Exception | None = None

    def supported(self) -> str | None:
        return None

    def sync(self, want: State) -> SyncResult:
        if self.error:
            raise self.error
        self.states.append(want)
        return SyncResult(writes=len(want.services))

    def reread(self) -> None:
        if self.error:
            raise self.error
        self.read += 1

    def left_over(self) -> bool:
        return False

    def cleanup(self, *, keep_chains: bool = False) -> int:
        return 0

    def close(self) -> None:
        pass


class Loader:
    """Makes recorders; ``missing`` are the families that this kernel lacks."""

    def __init__(self) -> None:
        self.made: dict[Family, Recorder] = {}
        self.missing: set[Family] = set()

    def __call__(self, family: Family) -> Recorder:
        if family in self.missing:
            raise Unsupported(f"no {family} here")
        self.made[family] = Recorder(family)
        return self.made[family]


def dual_stack(loader: Loader) -> DualStack:
    return DualStack([Proxier(NodeSettings(family=family, node="n"), loader) for family in Family])


def service(name: str, *ips: str, **more: Any) -> core.Service:
    return core.Service(
        metadata=ObjectMeta(namespace="demo", name=name),
        spec=core.ServiceSpec(
            cluster_ip=ips[0],
            cluster_ips=list(ips),
            ports=[core.ServicePort(port=80)],
            **more,
        ),
    )


def endpoints(service: str, address: str, name: str = "web-1") -> discovery.EndpointSlice:
    return discovery.EndpointSlice(
        metadata=ObjectMeta(
            namespace="demo", name=name, labels={discovery.SERVICE_NAME_LABEL: service}
        ),
        address_type="IPv4",
        endpoints=[discovery.Endpoint(addresses=[address])],
        ports=[discovery.EndpointPort(name="", port=8080)],
    )


def test_objects_become_a_state_and_a_report() -> None:
    loader = Loader()
    both = dual_stack(loader)
    both.on_services([(None, service("web", "10.96.0.1"))])
    both.on_slices([(None, endpoints("web", "10.128.0.1"))])
    (report,) = both.sync()
    assert (report.family, report.services, report.endpoints) == (Family.IPV4, 1, 1)
    assert not report.failed
    (name,) = loader.made[Family.IPV4].states[0].services
    assert str(name) == "demo/web"


def test_a_slice_under_a_new_name_leaves_no_moment_without_endpoints() -> None:
    loader = Loader()
    both = dual_stack(loader)
    both.on_services([(None, service("web", "10.96.0.1"))])
    before, after = endpoints("web", "10.128.0.1"), endpoints("web", "10.128.0.1", name="web-2")
    both.on_slices([(None, before)])
    assert both.sync()[0].endpoints == 1
    both.on_slices([(None, after), (before, None)])
    assert both.sync()[0].endpoints == 1


def test_the_second_family_is_not_touched_until_a_service_has_it_and_then_for_good() -> None:
    loader = Loader()
    both = dual_stack(loader)
    both.reread()
    both.on_services([(None, service("web", "10.96.0.1"))])
    assert len(both.sync()) == 1
    assert list(loader.made) == [Family.IPV4]
    six = service("six", "fd00::1")
    both.on_services([(None, six)])
    assert [report.family for report in both.sync()] == [Family.IPV4, Family.IPV6]
    both.on_services([(six, None)])
    both.sync()
    assert loader.made[Family.IPV6].states[-1].services == {}


def test_a_family_that_cannot_be_read_does_not_keep_the_other_from_it() -> None:
    loader = Loader()
    both = dual_stack(loader)
    both.on_services([(None, service("web", "10.96.0.1", "fd00::1"))])
    both.sync()
    four, six = (loader.made[family] for family in Family)
    four.error = KernelError("read", errno.EBUSY, "busy")
    with pytest.raises(KernelError, match="busy"):
        both.reread()
    assert six.read == 1


def test_a_kernel_without_the_second_family_serves_the_first() -> None:
    loader = Loader()
    loader.missing = {Family.IPV6}
    both = dual_stack(loader)
    both.on_services([(None, service("web", "10.96.0.1", "fd00::1"))])
    assert [report.family for report in both.sync()] == [Family.IPV4]
    assert both.take_disabled() == ["IPv6: no IPv6 here"]
    assert both.take_disabled() == []
    assert len(both.sync()) == 1


def test_a_family_that_the_kernel_lacks_has_left_nothing() -> None:
    loader = Loader()
    loader.missing = {Family.IPV6}
    both = dual_stack(loader)
    both.sync()
    assert not both.find_left_over()


def test_a_kernel_without_the_first_family_is_unsupported() -> None:
    loader = Loader()
    loader.missing = {Family.IPV4}
    with pytest.raises(Unsupported):
        dual_stack(loader).sync()


def test_a_failure_of_one_family_does_not_keep_the_other_from_its_turn() -> None:
    loader = Loader()
    both = dual_stack(loader)
    both.on_services([(None, service("web", "10.96.0.1", "fd00::1"))])
    both.sync()
    error = KernelError("read", errno.EIO, "no")
    loader.made[Family.IPV4].error = error
    reports = both.sync()
    assert [report.failed for report in reports] == [True, False]
    assert reports[0].result.failures == (error,)
