"""Why an endpoint is used or not, in words."""

from typing import Any

import pytest
from inspected import endpoint, node, service, sides, slice_of

from kproxy.inspect import views
from kproxy.inspect.views import ServiceView


def view(*endpoints: dict[str, Any], zone: str = "a", **spec: Any) -> ServiceView:
    objects = (service("web", "10.96.0.10", **spec), slice_of("web", *endpoints))
    side = sides("iptables", *objects, node(zone=zone))[0]
    (found,) = views.service_views(side.world, side.endpoints)
    return found


def reasons(found: ServiceView) -> dict[str, str]:
    return {one.endpoint.address.rpartition(".")[2]: one.why for one in found.endpoints}


def test_conditions() -> None:
    found = view(
        endpoint("10.128.1.1", ready=True),
        endpoint("10.128.1.2", ready=False),
        endpoint("10.128.1.3", ready=False, serving=True, terminating=True),
        endpoint("10.128.1.4", ready=False, serving=False, terminating=True),
    )
    assert reasons(found) == {
        "1": "",
        "2": "not ready",
        "3": "terminating, and others are ready",
        "4": "terminating, serves no more",
    }
    assert found.notes == ()


def test_the_last_resort_is_told() -> None:
    found = view(
        endpoint("10.128.1.2", ready=False, serving=False),
        endpoint("10.128.1.3", ready=False, serving=True, terminating=True),
    )
    assert reasons(found) == {"2": "not ready", "3": ""}
    assert found.notes == ("no endpoint is ready: those that terminate but still serve are used",)


def test_without_usable_endpoints_it_says_so() -> None:
    assert view().notes == ("no endpoint can be used",)
    assert view(endpoint("10.128.1.2", ready=False)).notes == ("no endpoint can be used",)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"internalTrafficPolicy": "Local"}, "not on this node"),
        (
            {"type": "NodePort", "nodePort": 30080, "externalTrafficPolicy": "Local"},
            "not by external traffic: not on this node",
        ),
        (
            {"type": "NodePort", "nodePort": 30080, "internalTrafficPolicy": "Local"},
            "not by internal traffic: not on this node",
        ),
    ],
)
def test_policy_local(spec: dict[str, Any], why: str) -> None:
    found = view(endpoint("10.128.0.5", "node1"), endpoint("10.128.1.6"), **spec)
    assert reasons(found) == {"5": "", "6": why}
    assert [one.used for one in found.endpoints] == [True, why.startswith("not by")]


def test_policy_local_without_local_endpoints() -> None:
    found = view(endpoint("10.128.1.6"), internalTrafficPolicy="Local")
    assert reasons(found) == {"6": "not on this node"}
    assert found.notes == ("policy Local, and no endpoint on this node",)


def test_hints() -> None:
    zones = (endpoint("10.128.1.1", zone="a"), endpoint("10.128.1.2", zone="b"))
    assert reasons(view(*zones)) == {"1": "", "2": "hint for zone b, this is a"}
    nodes = (
        endpoint("10.128.1.1", zone="a", for_node="node1"),
        endpoint("10.128.1.2", zone="a", for_node="node2"),
    )
    assert reasons(view(*nodes)) == {"1": "", "2": "hint for node node2"}


def test_hints_that_are_not_followed_are_told() -> None:
    hinted, bare = endpoint("10.128.1.1", zone="b"), endpoint("10.128.1.2")
    assert view(hinted, bare).notes == ("hints are not followed: 10.128.1.2:8080 has none",)
    assert view(hinted).notes == ("hints are not followed: none is for zone a",)
    assert view(hinted, zone="").notes == (
        "hints are not followed: the zone of this node is not known",
    )


def test_addresses_and_policies_are_listed() -> None:
    found = view(
        type="LoadBalancer",
        nodePort=30080,
        externalIPs=["203.0.113.5"],
        balancer=["203.0.113.7"],
        loadBalancerSourceRanges=["198.51.100.0/24"],
        externalTrafficPolicy="Local",
        healthCheckNodePort=31000,
        sessionAffinity="ClientIP",
    ).state.service
    assert views.reached_by(found) == [
        "10.96.0.10:80/TCP",
        "external 203.0.113.5:80",
        "balancer 203.0.113.7:80",
        "  from 198.51.100.0/24",
        "node port 30080",
        "health check port 31000",
    ]
    assert views.policies(found) == ["internal Cluster", "external Local", "ClientIP 10800 s"]


def test_only_what_is_special_is_said_of_policies() -> None:
    exposed = {"type": "NodePort", "nodePort": 30080}
    assert views.policies(view().state.service) == []
    assert views.policies(view(**exposed).state.service) == []
    assert views.policies(view(internalTrafficPolicy="Local").state.service) == ["policy Local"]
    both = view(internalTrafficPolicy="Local", externalTrafficPolicy="Local", **exposed)
    assert views.policies(both.state.service) == ["policy Local"]
