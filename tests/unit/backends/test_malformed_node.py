"""A Node, a ServiceCIDR or a configuration that is malformed stops no sync, and is told."""

from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from malformed import (
    GOOD_SERVICES,
    GOOD_SLICES,
    NODE,
    NUMBERS,
    WORDS,
    as_text,
    changed,
    junk,
    places,
    spoilt,
)
from whole_proxy import MODES, WholeProxy, event

from kproxy.agent.settings import from_config
from kproxy.api import yamltext
from kproxy.api.configfile import decode_config
from kproxy.errors import KproxyError

MANY = examples(100)
FULL_NODE = {
    **NODE,
    "spec": {
        "podCIDR": "10.128.0.0/24",
        "podCIDRs": ["10.128.0.0/24", "fd00:10:128::/64"],
        "taints": [{"key": "a", "effect": "NoSchedule", "value": "b"}],
        "unschedulable": False,
    },
    "status": {
        "addresses": [
            {"type": "InternalIP", "address": "192.168.1.1"},
            {"type": "InternalIP", "address": "fd00:192:168:1::1"},
            {"type": "Hostname", "address": "n1"},
        ],
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
RANGES = {
    "metadata": {"name": "kubernetes"},
    "spec": {"cidrs": ["10.96.0.0/12", "fd00:10:96::/112"]},
}


def listed(proxy: WholeProxy, *nodes: Any, ranges: Any = RANGES) -> None:
    proxy.relist(
        services=GOOD_SERVICES, endpointslices=GOOD_SLICES, nodes=nodes, servicecidrs=[ranges]
    )


@pytest.mark.parametrize("mode", MODES)
@given(first=spoilt(FULL_NODE), second=spoilt(FULL_NODE))
@MANY
def test_services_do_not_depend_on_a_sound_node(mode: str, first: bytes, second: bytes) -> None:
    alone, proxy = WholeProxy(mode), WholeProxy(mode)
    listed(alone, FULL_NODE)
    listed(proxy, first)
    assert proxy.ready
    for one in (alone, proxy):
        one.sync()
    assert proxy.kernel.contents() == alone.kernel.contents()
    proxy.watch(nodes=[event("MODIFIED", second), event("MODIFIED", FULL_NODE)])
    proxy.sync()
    assert proxy.kernel.contents() == alone.kernel.contents()
    assert proxy.told("sync failed") == []


@pytest.mark.parametrize("mode", MODES)
@given(first=spoilt(FULL_NODE), second=spoilt(FULL_NODE))
@MANY
def test_what_the_rules_take_of_a_node_is_right_as_soon_as_the_node_is(
    mode: str, first: bytes, second: bytes
) -> None:
    wanted = {"detect_local_mode": "NodeCIDR", "node_port_addresses": ["primary"]}
    alone, proxy = WholeProxy(mode, **wanted), WholeProxy(mode, **wanted)
    listed(alone, FULL_NODE)
    listed(proxy, first)
    if proxy.ready:
        proxy.sync()
    proxy.watch(nodes=[event("MODIFIED", second)])
    if proxy.ready:
        proxy.sync()
    proxy.watch(nodes=[event("MODIFIED", FULL_NODE)])
    assert proxy.ready
    for one in (alone, proxy):
        one.sync()
    assert proxy.kernel.contents() == alone.kernel.contents()
    assert proxy.told("sync failed") == []


@pytest.mark.parametrize(
    ("field", "at", "value"),
    [
        ("spec.podCIDRs[0]", ("spec", "podCIDRs", 0), "10.128.0.0"),
        ("spec.podCIDRs[1]", ("spec", "podCIDRs", 1), "::ffff:10.0.0.0/120"),
        ("spec.podCIDR", ("spec", "podCIDR"), "x"),
        ("spec.podCIDRs", ("spec", "podCIDRs"), "10.128.0.0/24"),
        ("spec.taints[0].key", ("spec", "taints", 0, "key"), None),
        ("metadata.labels", ("metadata", "labels"), 3),
        ("status.addresses[0]", ("status", "addresses", 0), "192.168.1.1"),
    ],
)
def test_a_fault_of_the_node_is_told_once(field: str, at: tuple[Any, ...], value: Any) -> None:
    proxy = WholeProxy("iptables", detect_local_mode="NodeCIDR")
    listed(proxy, FULL_NODE)
    proxy.sync()
    evil = as_text(changed(FULL_NODE, at, value))
    proxy.watch(nodes=[event("MODIFIED", evil), event("MODIFIED", evil)])
    (told,) = proxy.told()
    assert told.startswith((f"Node n1: {field}: ", f"Node default/n1: {field}: "))


@given(ranges=spoilt(RANGES))
@MANY
def test_services_do_not_depend_on_sound_ranges(ranges: bytes) -> None:
    alone, proxy = WholeProxy("nftables"), WholeProxy("nftables")
    listed(alone, NODE)
    listed(proxy, NODE, ranges=ranges)
    assert proxy.ready
    proxy.sync()
    proxy.watch(servicecidrs=[event("MODIFIED", RANGES)])
    for one in (alone, proxy):
        one.sync()
    assert proxy.kernel.contents() == alone.kernel.contents()
    assert proxy.told("sync failed") == []


def test_a_fault_of_a_range_is_told() -> None:
    proxy = WholeProxy("nftables")
    listed(proxy, NODE, ranges=changed(RANGES, ("spec", "cidrs", 0), "10.96.0.0"))
    (told,) = proxy.told()
    assert told.startswith("ServiceCIDR kubernetes: spec.cidrs[0]: ")


CONFIGURATION = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha2",
    "kind": "KubeProxyConfiguration",
    "hostnameOverride": "n1",
    "detectLocalMode": "ClusterCIDR",
    "detectLocal": {
        "bridgeInterface": "cbr0",
        "interfaceNamePrefix": "veth",
        "clusterCIDRs": ["10.128.0.0/9", "fd00:10:128::/48"],
    },
    "nodePortAddresses": ["192.168.1.0/24"],
    "syncPeriod": "30s",
    "minSyncPeriod": "1s",
    "serviceProxyName": "",
    "iptables": {"localhostNodePorts": True, "masqueradeBit": 14},
    "ipvs": {
        "scheduler": "rr",
        "excludeCIDRs": ["192.0.2.0/24"],
        "strictARP": True,
        "tcpTimeout": "1s",
        "tcpFinTimeout": "1s",
        "udpTimeout": "1s",
    },
    "linux": {"masqueradeAll": True, "conntrack": {"maxPerCore": 1, "min": 1}},
}


LOCAL_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
words = st.sampled_from(WORDS)
values = st.one_of(words, st.lists(words, max_size=2), st.sampled_from(NUMBERS), junk)


def one_of_each(mode: str) -> dict[str, Any]:
    return {**CONFIGURATION, "mode": mode}


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
@MANY
def test_a_configuration_is_refused_with_a_word_or_every_sync_succeeds(
    mode: str, data: st.DataObject
) -> None:
    local = data.draw(st.sampled_from(LOCAL_MODES))
    whole = {**one_of_each(mode), "detectLocalMode": local}
    at = data.draw(st.sampled_from([one for one in places(whole) if one]))
    text = as_text(changed(whole, at, data.draw(values))).decode(errors="replace")
    try:
        body = yamltext.parse_one(text, "file config")
        found = from_config(decode_config(body).config)
    except KproxyError:
        return
    proxy = WholeProxy(found.mode, found)
    listed(proxy, FULL_NODE)
    proxy.sync()
    assert proxy.told("sync failed") == []
    assert proxy.writes() == 0


def test_all_of_the_sound_configuration_is_taken() -> None:
    for mode in MODES:
        assert from_config(decode_config(one_of_each(mode)).config).mode == mode


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "[" * 5000 + "]" * 5000,
        "a: " + "[" * 5000 + "]" * 5000,
        "a: " + "9" * 5000,
        '{"a": ' + "9" * 5000 + "}",
        "a: !!int x",
        "a: !!float x",
        "? [a]\n: 1",
        "? {a: 1}\n: 1",
        "a: !!binary x",
        "a: !!python/object:os.system x",
        "a: *b",
        "a: &a [*a]",
    ],
    ids=lambda text: text[:20],
)
def test_files_that_nobody_can_read(text: str) -> None:
    with pytest.raises(KproxyError):
        decode_config(yamltext.parse_one(text, "file config"))
