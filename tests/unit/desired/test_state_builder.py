"""From objects to State: what is read of them."""

import pytest
from built_states import (
    HTTP,
    PROXY,
    build,
    build_with_problems,
    builder,
    endpoints,
    feed,
    only,
    piece,
    places,
    service,
)

from kproxy.desired.model import Endpoint, Family, ServicePort


def test_a_service_with_endpoints():
    state = build(service(), piece(items=endpoints("10.1.0.2", "10.1.0.1", nodeName="n1")))
    one = state.services[HTTP]
    assert one.service == ServicePort(name=HTTP, cluster_ip="10.96.0.10", port=80)
    assert one.cluster == (
        Endpoint(address="10.1.0.1", port=8080, local=True),
        Endpoint(address="10.1.0.2", port=8080, local=True),
    )


def test_settings_go_into_the_state():
    state = builder(cluster_cidrs=("10.1.0.0/16",), masquerade_all=True, masquerade_bit=3).build()
    assert (state.cluster_cidrs, state.masquerade_all, state.masquerade_bit) == (
        ("10.1.0.0/16",), True, 3,
    )  # fmt: skip


def test_a_service_without_slices_has_no_endpoints():
    one = only(build(service()))
    assert (one.cluster, one.anywhere) == ((), False)


def test_a_slice_without_its_service_has_no_effect_until_that_comes():
    made = builder()
    feed(made, piece(items=endpoints("10.1.0.1")))
    assert made.build().services == {}
    feed(made, service())
    assert places(only(made.build()).cluster) == [("10.1.0.1", 8080)]


@pytest.mark.parametrize(
    "ignored",
    [
        service(clusterIP="None"),
        service(clusterIP="", clusterIPs=["None"]),
        service(clusterIP=""),
        service(type="ExternalName", externalName="example.org"),
        service(meta={"labels": {"service.kubernetes.io/service-proxy-name": "other"}}),
        service(clusterIP="fd00::1"),
        service(ports=[]),
    ],
)
def test_services_that_are_not_for_this_proxy(ignored):
    assert build(ignored).services == {}


@pytest.mark.parametrize(
    ("labels", "ours"),
    [(None, 0), ({}, 0), ({"x": "mine"}, 0), ({PROXY: "mine"}, 1), ({PROXY: "other"}, 0)],
)
def test_a_proxy_with_a_name_serves_what_names_it(labels, ours):
    made = builder(proxy_name="mine")
    feed(made, service(meta={"labels": labels}))
    assert len(made.build().services) == ours


def test_protocols_and_ports_are_joined_by_name_and_protocol():
    state = build(
        service(
            ports=[
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53},
                {"name": "none", "port": 99},
            ]
        ),
        piece(
            ports=[
                {"name": "dns", "port": 5353, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 5354},
                {"name": "none", "port": 1, "protocol": "SCTP"},
            ],
            items=endpoints("10.1.0.1"),
        ),
    )
    found = {name.port: places(one.cluster) for name, one in state.services.items()}
    assert found == {
        "dns": [("10.1.0.1", 5353)],
        "dns-tcp": [("10.1.0.1", 5354)],
        "none": [],
    }


def test_an_unnamed_port_and_defaults():
    state = build(
        service(ports=[{"port": 80}]), piece(ports=[{"port": 8080}], items=endpoints("10.1.0.1"))
    )
    assert places(state.services[HTTP._replace(port="")].cluster) == [("10.1.0.1", 8080)]


def test_a_slice_port_without_a_number_is_ignored():
    one = only(build(service(), piece(ports=[{"name": "http"}], items=endpoints("10.1.0.1"))))
    assert one.cluster == ()


def test_absent_conditions_mean_ready():
    items = [
        {"addresses": ["10.1.0.1"]},
        {"addresses": ["10.1.0.2"], "conditions": {}},
        {"addresses": ["10.1.0.3"], "conditions": {"ready": False}},
    ]
    one = only(build(service(), piece(items=items)))
    assert [two.address for two in one.cluster] == ["10.1.0.1", "10.1.0.2"]
    assert [two.address for two in one.known] == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]


def test_slices_are_merged():
    one = only(
        build(
            service(),
            piece("a", items=endpoints("10.1.0.3", "10.1.0.1")),
            piece("b", items=endpoints("10.1.0.2")),
        )
    )
    assert [two.address for two in one.cluster] == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_an_address_in_two_slices_is_there_once_and_ready_wins(names):
    gone = {"ready": False, "serving": False, "terminating": True}
    one = only(
        build(
            service(),
            piece(names[0], items=endpoints("10.1.0.1", conditions=gone)),
            piece(names[1], items=endpoints("10.1.0.1")),
        )
    )
    assert one.known == (Endpoint(address="10.1.0.1", port=8080),)


def test_doubles_that_differ_in_nothing_else_do_not_depend_on_the_order_of_events():
    hinted = endpoints("10.1.0.1", hints={"forZones": [{"name": "zone-a"}]})
    parts = piece("a", items=hinted), piece("b", items=endpoints("10.1.0.1"))
    assert build(service(), *parts) == build(service(), *reversed(parts))


def test_the_same_address_with_another_port_is_another_endpoint():
    one = only(
        build(
            service(),
            piece("a", items=endpoints("10.1.0.1")),
            piece("b", ports=[{"name": "http", "port": 9090}], items=endpoints("10.1.0.1")),
        )
    )
    assert places(one.cluster) == [("10.1.0.1", 8080), ("10.1.0.1", 9090)]


def test_each_family_takes_its_own():
    objects = (
        service(
            clusterIP="10.96.0.10",
            clusterIPs=["10.96.0.10", "FD00:96::10"],
            ipFamilies=["IPv4", "IPv6"],
            externalIPs=["198.51.100.1", "2001:db8::1"],
        ),
        piece("four", items=endpoints("10.1.0.1")),
        piece("six", kind="IPv6", items=endpoints("FD00:1::0:1")),
        piece("name", kind="FQDN", items=endpoints("web.example.org")),
    )
    four, six = only(build(*objects)), only(build(*objects, family=Family.IPV6))
    assert (four.service.cluster_ip, six.service.cluster_ip) == ("10.96.0.10", "fd00:96::10")
    assert (four.service.external_ips, six.service.external_ips) == (
        ("198.51.100.1",), ("2001:db8::1",),
    )  # fmt: skip
    assert places(four.cluster) == [("10.1.0.1", 8080)]
    assert places(six.cluster) == [("fd00:1::1", 8080)]


def test_everything_of_a_load_balancer():
    ingress = [
        {"ip": "203.0.113.1"},
        {"ip": "203.0.113.2", "ipMode": "VIP"},
        {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"hostname": "lb.example.org"},
    ]
    made = service(
        type="LoadBalancer",
        ports=[{"name": "http", "port": 80, "nodePort": 30080}],
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Local",
        healthCheckNodePort=32000,
        loadBalancerSourceRanges=["198.51.100.7/24", " 192.0.2.0/24", "fd00::/8"],
        sessionAffinity="ClientIP",
        status={"loadBalancer": {"ingress": ingress}},
    )
    assert only(build(made)).service == ServicePort(
        name=HTTP,
        cluster_ip="10.96.0.10",
        port=80,
        node_port=30080,
        load_balancer_vips=("203.0.113.1", "203.0.113.2"),
        source_ranges=("198.51.100.0/24", "192.0.2.0/24"),
        affinity_seconds=10800,
        external_local=True,
        internal_local=True,
        health_check_node_port=32000,
    )


def test_what_a_cluster_ip_service_cannot_have():
    made = service(
        ports=[{"name": "http", "port": 80, "nodePort": 30080}],
        externalTrafficPolicy="Local",
        healthCheckNodePort=32000,
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 5}},
    )
    one = only(build(made)).service
    assert (one.node_port, one.external_local, one.health_check_node_port) == (0, False, 0)
    assert one.affinity_seconds == 5


def test_an_external_ip_makes_a_service_externally_accessible():
    one = only(build(service(externalIPs=["198.51.100.1"], externalTrafficPolicy="Local"))).service
    assert one.external_local


@pytest.mark.parametrize(
    ("objects", "told", "left"),
    [
        (
            [service(clusterIP="10.96.0.999")],
            "Service demo/web: spec.clusterIP: '10.96.0.999' is not an IP address",
            {},
        ),
        (
            [service(ports=[{"name": "a", "port": 0}, {"name": "b", "port": 81}])],
            "Service demo/web: spec.ports[0].port: 0 is out of range",
            {"b": []},
        ),
        (
            [service(ports=[{"name": "a", "port": 1, "protocol": "tcp"}])],
            "Service demo/web: spec.ports[0].protocol: unknown protocol 'tcp'",
            {},
        ),
        (
            [service(ports=[{"name": "a", "port": 1}, {"name": "a", "port": 2}])],
            "Service demo/web: spec.ports[1].name: 'a' is there twice",
            {"a": []},
        ),
        (
            [service(), piece(items=endpoints("10.1.0.1", "10.1.0.256"))],
            "EndpointSlice demo/web-1: endpoints[1].addresses[0]: '10.1.0.256' is not an IPv4",
            {"http": ["10.1.0.1"]},
        ),
        (
            [service(), piece(items=endpoints("10.1.0.1", "fd00::1"))],
            "EndpointSlice demo/web-1: endpoints[1].addresses[0]: 'fd00::1' is not an IPv4",
            {"http": ["10.1.0.1"]},
        ),
        (
            [service(), piece(items=endpoints("10.1.0.1", "224.0.0.1"))],
            "EndpointSlice demo/web-1: endpoints[1].addresses[0]: '224.0.0.1' is multicast",
            {"http": ["10.1.0.1"]},
        ),
        (
            [service(), piece(items=endpoints("0.0.0.0", "10.1.0.1"))],
            "EndpointSlice demo/web-1: endpoints[0].addresses[0]: '0.0.0.0' is unspecified",
            {"http": ["10.1.0.1"]},
        ),
        (
            [service(clusterIP="0.0.0.0")],
            "Service demo/web: spec.clusterIP: '0.0.0.0' is unspecified",
            {},
        ),
        (
            [service(), piece(items=[{"addresses": []}])],
            "EndpointSlice demo/web-1: endpoints[0].addresses: is empty",
            {"http": []},
        ),
        (
            [service(), piece(ports=[{"name": "http", "port": 70000}])],
            "EndpointSlice demo/web-1: ports[0].port: 70000 is out of range",
            {"http": []},
        ),
        (
            [service(), piece(ports=[{"name": "http", "port": 70, "protocol": "tcp"}])],
            "EndpointSlice demo/web-1: ports[0].protocol: unknown protocol 'tcp'",
            {"http": []},
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_reported_and_skipped(objects, told, left):
    state, problems = build_with_problems(*objects)
    assert len(problems) == 1
    assert problems[0].startswith(told)
    found = {
        name.port: [two.address for two in one.cluster] for name, one in state.services.items()
    }
    assert found == left


def test_a_dual_stack_service_is_reported_by_one_family_only():
    made = service(
        clusterIPs=["10.96.0.1", "fd00::1"], ipFamilies=["IPv6", "IPv4"], externalIPs=["x"]
    )
    assert build_with_problems(made)[1] == []
    assert len(build_with_problems(made, family=Family.IPV6)[1]) == 1


def test_problems_are_told_once():
    made = builder()
    feed(made, service(clusterIP="x"))
    made.build()
    assert len(made.take_problems()) == 1
    made.build()
    assert made.take_problems() == []
