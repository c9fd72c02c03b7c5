"""No object, however malformed, keeps the others from being served; and it is told which it is."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from malformed import (
    GOOD_SERVICES,
    GOOD_SLICES,
    NODE,
    RAW,
    as_text,
    bad_services,
    bad_slices,
    changed,
    everything,
    pieces,
    port,
    service,
)
from whole_proxy import MODES, WholeProxy, event, missing

from kproxy.api import codec, core
from kproxy.errors import KproxyError

FEW = examples(100)
LATER = pieces("web", 1, 2, 9)


def started(mode: str, services: Any = (), slices: Any = ()) -> WholeProxy:
    """Return a proxy that has synced the good objects and some more."""
    proxy = WholeProxy(mode)
    proxy.relist(
        services=[*GOOD_SERVICES, *services],
        endpointslices=[*GOOD_SLICES, *slices],
        nodes=[NODE],
    )
    assert proxy.ready
    proxy.sync()
    return proxy


@cache
def good(mode: str) -> tuple[Any, Any]:
    """Return the kernel's content for the good objects alone, and that after a change of one."""
    proxy = started(mode)
    first = proxy.kernel.contents()
    proxy.watch(endpointslices=[event("MODIFIED", one) for one in LATER])
    proxy.sync()
    assert proxy.told() == []
    return first, proxy.kernel.contents()


@pytest.mark.parametrize("mode", MODES)
@given(services=bad_services(), slices=bad_slices(), data=st.data())
@FEW
def test_what_is_good_is_served_as_if_it_were_alone(
    mode: str, services: list[bytes], slices: list[bytes], data: st.DataObject
) -> None:
    alone, later = good(mode)
    proxy = WholeProxy(mode)
    proxy.relist(
        services=data.draw(st.permutations([*GOOD_SERVICES, *services])),
        endpointslices=data.draw(st.permutations([*GOOD_SLICES, *slices])),
        nodes=[NODE],
    )
    assert proxy.ready
    proxy.sync()
    assert missing(alone, proxy.kernel.contents()) == ""
    assert proxy.writes() == 0, "what is read differs from what was written"
    proxy.watch(endpointslices=[event("MODIFIED", one) for one in LATER])
    proxy.sync()
    assert missing(later, proxy.kernel.contents()) == ""
    assert proxy.told("sync failed") == []
    proxy.relist(services=GOOD_SERVICES, endpointslices=[*GOOD_SLICES, *LATER])
    proxy.sync()
    assert proxy.kernel.contents() == later


BAD, SHOP = everything("bad", 99, 31099), everything("shop", 20, 30020)
LONG = "a" * 300

SERVICE_FAULTS: list[tuple[str, tuple[Any, ...], Any]] = [
    ("metadata", ("metadata",), None),
    ("metadata.labels", ("metadata", "labels"), []),
    ("metadata.labels[...]", ("metadata", "labels"), {"a": 1}),
    ("metadata.resourceVersion", ("metadata", "resourceVersion"), 7),
    ("spec", ("spec",), None),
    ("spec", ("spec",), "x"),
    ("spec.type", ("spec", "type"), "NodeBalancer"),
    ("spec.type", ("spec", "type"), None),
    ("spec.clusterIP", ("spec", "clusterIP"), {}),
    ("spec.clusterIPs[0]", ("spec", "clusterIPs", 0), "::ffff:10.96.0.20"),
    ("spec.clusterIPs[0]", ("spec", "clusterIPs", 0), "10.96.0.020"),
    ("spec.clusterIPs[1]", ("spec", "clusterIPs", 1), "fe80::1%eth0"),
    ("spec.clusterIPs[1]", ("spec", "clusterIPs", 1), None),
    ("spec.ports", ("spec", "ports"), 80),
    ("spec.ports[0]", ("spec", "ports", 0), None),
    ("spec.ports[0].port", ("spec", "ports", 0, "port"), 0),
    ("spec.ports[0].port", ("spec", "ports", 0, "port"), 65536),
    ("spec.ports[0].port", ("spec", "ports", 0, "port"), -1),
    ("spec.ports[0].port", ("spec", "ports", 0, "port"), 10**30),
    ("spec.ports[0].port", ("spec", "ports", 0, "port"), "80"),
    ("spec.ports[0].port", ("spec", "ports", 0, "port"), 80.5),
    ("spec.ports[0].port", ("spec", "ports", 0, "port"), "@too-large@"),
    ("spec.ports[0].name", ("spec", "ports", 0, "name"), LONG),
    ("spec.ports[0].name", ("spec", "ports", 0, "name"), "a\nb"),
    ("spec.ports[0].protocol", ("spec", "ports", 0, "protocol"), "tcp"),
    ("spec.ports[0].nodePort", ("spec", "ports", 0, "nodePort"), 65536),
    ("spec.ports[0].nodePort", ("spec", "ports", 0, "nodePort"), -1),
    ("spec.ports[0].nodePort", ("spec", "ports", 0, "nodePort"), 2**64),
    ("spec.ports[1].name", ("spec", "ports"), BAD["spec"]["ports"] * 2),
    ("spec.externalIPs[0]", ("spec", "externalIPs", 0), "0.0.0.0"),
    ("spec.externalIPs[0]", ("spec", "externalIPs", 0), "::1"),
    ("spec.externalIPs[0]", ("spec", "externalIPs", 0), "x" * 5000),
    ("spec.externalTrafficPolicy", ("spec", "externalTrafficPolicy"), "Lokal"),
    ("spec.internalTrafficPolicy", ("spec", "internalTrafficPolicy"), "Lokal"),
    ("spec.healthCheckNodePort", ("spec", "healthCheckNodePort"), 65536),
    ("spec.healthCheckNodePort", ("spec", "healthCheckNodePort"), -1),
    ("spec.loadBalancerSourceRanges[0]", ("spec", "loadBalancerSourceRanges", 0), "10.0.0.0"),
    ("spec.sessionAffinity", ("spec", "sessionAffinity"), "ServerIP"),
    (
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        ("spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"),
        0,
    ),
    (
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        ("spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"),
        2**40,
    ),
    ("status", ("status",), 3),
    ("status.loadBalancer.ingress[0].ip", ("status", "loadBalancer", "ingress", 0, "ip"), "x"),
    (
        "status.loadBalancer.ingress[0].ipMode",
        ("status", "loadBalancer", "ingress", 0, "ipMode"),
        "vip",
    ),
]
"""Where a fault is told, where it is, and what is there."""

SLICE_FAULTS: list[tuple[str, tuple[Any, ...], Any]] = [
    ("metadata", ("metadata",), []),
    ("metadata.labels", ("metadata", "labels"), "web"),
    ("addressType", ("addressType",), "IPv5"),
    ("addressType", ("addressType",), 4),
    ("endpoints", ("endpoints",), {}),
    ("endpoints[0]", ("endpoints", 0), None),
    ("endpoints[0].addresses", ("endpoints", 0, "addresses"), []),
    ("endpoints[0].addresses", ("endpoints", 0, "addresses"), None),
    ("endpoints[0].addresses[0]", ("endpoints", 0, "addresses"), ["10.128.0.01"]),
    ("endpoints[0].addresses[0]", ("endpoints", 0, "addresses"), ["::ffff:10.128.0.1"]),
    ("endpoints[0].addresses[0]", ("endpoints", 0, "addresses"), ["fd00::1"]),
    ("endpoints[0].addresses[0]", ("endpoints", 0, "addresses"), ["127.0.0.1"]),
    ("endpoints[0].addresses[0]", ("endpoints", 0, "addresses"), [7]),
    ("endpoints[0].conditions.ready", ("endpoints", 0, "conditions", "ready"), "yes"),
    ("endpoints[0].conditions", ("endpoints", 0, "conditions"), []),
    ("endpoints[0].hints.forZones[0]", ("endpoints", 0, "hints", "forZones", 0), "a"),
    ("endpoints[0].nodeName", ("endpoints", 0, "nodeName"), 1),
    ("ports[0].port", ("ports", 0, "port"), 0),
    ("ports[0].port", ("ports", 0, "port"), 65536),
    ("ports[0].port", ("ports", 0, "port"), 2**70),
    ("ports[0].port", ("ports", 0, "port"), "http"),
    ("ports[0].protocol", ("ports", 0, "protocol"), "icmp"),
    ("ports", ("ports",), 8080),
]


def told_of(proxy: WholeProxy, kind: str, at: str) -> list[str]:
    """Return what was told of a field of the object named bad, each once."""
    labels = (f"{kind} demo/bad: {at}: ", f"{kind} without a name: {at}: ")
    return [one for one in proxy.told() if one.startswith(labels)]


@pytest.mark.parametrize("fault", SERVICE_FAULTS, ids=str)
def test_a_fault_of_a_service_is_told_once_with_its_field(
    fault: tuple[str, tuple[Any, ...], Any],
) -> None:
    field, at, value = fault
    bad = as_text(changed(BAD, at, value))
    for mode in MODES:
        proxy = started(mode, [bad])
        assert len(proxy.told()) == 1, proxy.told()
        assert len(told_of(proxy, "Service", field)) == 1, proxy.told()
        assert missing(good(mode)[0], proxy.kernel.contents()) == ""


@pytest.mark.parametrize("fault", SLICE_FAULTS, ids=str)
def test_a_fault_of_a_slice_is_told_once_with_its_field(
    fault: tuple[str, tuple[Any, ...], Any],
) -> None:
    field, at, value = fault
    obj = pieces("bad", 98)[0]
    obj["metadata"]["name"] = "bad"
    bad = as_text(changed(obj, at, value))
    for mode in MODES:
        proxy = started(mode, [service("bad", 99, ports=[port(80)])], [bad])
        assert len(proxy.told()) == 1, proxy.told()
        assert len(told_of(proxy, "EndpointSlice", field)) == 1, proxy.told()
        assert missing(good(mode)[0], proxy.kernel.contents()) == ""


def undecodable() -> Iterator[Any]:
    """Yield versions of a good Service that cannot be decoded, and which field is to blame."""
    faults = [*SERVICE_FAULTS, *(("not JSON", ("spec", "more"), word) for word in RAW)]
    for field, at, value in faults:
        evil = as_text(changed(SHOP, at, value))
        try:
            codec.decode_object(evil, core.Service)
        except KproxyError:
            nameless = at == ("metadata",)
            yield pytest.param(evil, field, nameless, id=f"{field} {str(value)[:30]}")


@pytest.mark.parametrize(("evil", "field", "nameless"), list(undecodable()))
@pytest.mark.parametrize("mode", MODES)
def test_the_last_good_version_of_what_nobody_can_decode_stays(
    mode: str, evil: bytes, field: str, nameless: bool
) -> None:
    proxy = started(mode)
    before = proxy.kernel.contents()
    proxy.watch(services=[event("MODIFIED", evil), event("ADDED", evil)])
    if not nameless:  # else nobody can know whose version it is
        proxy.relist(services=[*GOOD_SERVICES[:2], evil, *GOOD_SERVICES[3:]])
    proxy.sync()
    assert proxy.kernel.contents() == before
    assert any(field in one for one in proxy.told())
    # What comes after it in the same watch is heard.
    proxy.watch(services=[event("MODIFIED", evil), event("DELETED", GOOD_SERVICES[0])])
    proxy.sync()
    assert proxy.kernel.contents() != before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["", LONG, "a b", "a\nCOMMIT\n*nat", 'x"', "A", "-a", "é", "\x00"]
)
def test_names_that_no_service_can_have(mode: str, name: str) -> None:
    for field in ("name", "namespace"):
        obj = everything("bad", 99, 31099)
        obj["metadata"][field] = name
        proxy = started(mode, [as_text(obj)], [])
        (told,) = proxy.told()
        assert f"metadata.{field}" in told
        assert proxy.kernel.contents() == good(mode)[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_slice_of_more_endpoints_than_there_may_be(mode: str) -> None:
    numbers = [f"10.128.{n >> 8}.{n & 255}" for n in range(256, 256 + 2000)]
    many = pieces("bad", 98)[0]
    many["endpoints"] = [{"addresses": [one, "nonsense"]} for one in numbers] * 2
    proxy = started(mode, [service("bad", 99, ports=[port(80)])], [many])
    assert missing(good(mode)[0], proxy.kernel.contents()) == ""
    state = proxy.agent._proxier.proxiers[0].wanted()
    (bad,) = (one for name, one in state.services.items() if name.name == "bad")
    assert len(bad.cluster) == 2000
    assert proxy.writes() == 0


@pytest.mark.parametrize("version", ["²", "9" * 5000, "-1", "x", "", "٣"])
def test_versions_that_are_no_numbers(version: str) -> None:
    obj = service("odd", 99, ports=[port(80)])
    obj["metadata"]["resourceVersion"] = version
    proxy = started("ipvs", [obj])
    proxy.watch(services=[event("MODIFIED", obj | {"status": {"loadBalancer": {}}})])
    proxy.sync()
    assert proxy.told() == []
