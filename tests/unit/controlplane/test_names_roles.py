"""What the name server, the load balancer and who monitors may do, and nothing else."""

import pytest

from kproxy.controlplane.access import identity, roles
from kproxy.controlplane.access.roles import Attributes

DNS = identity.authenticated(identity.DNS)
BALANCER = identity.authenticated(identity.BALANCER)
MONITORING = identity.authenticated(identity.PROMETHEUS, (identity.MONITORS,))
PROBER = identity.authenticated(identity.PROBER)
REMEDIATION = identity.authenticated(identity.REMEDIATION)


@pytest.mark.parametrize(
    ("user", "verb", "resource", "part", "expected"),
    [
        (DNS, "watch", "endpointslices", "", True),
        (DNS, "list", "pods", "", True),
        (DNS, "get", "secrets", "", False),
        (DNS, "get", "pods", "log", False),
        (DNS, "update", "services", "", False),
        (DNS, "create", "events", "", False),
        (BALANCER, "watch", "nodes", "", True),
        (BALANCER, "patch", "services", "status", True),
        (BALANCER, "patch", "services", "", False),
        (BALANCER, "update", "nodes", "status", False),
        (BALANCER, "create", "events", "", True),
        (BALANCER, "get", "secrets", "", False),
        (MONITORING, "watch", "endpointslices", "", True),
        (MONITORING, "list", "endpoints", "", True),
        (MONITORING, "list", "pods", "", True),
        (MONITORING, "watch", "daemonsets", "", True),
        (MONITORING, "get", "leases", "", True),
        (MONITORING, "get", "pods", "log", False),
        (MONITORING, "get", "secrets", "", False),
        (MONITORING, "list", "configmaps", "", False),
        (MONITORING, "delete", "pods", "", False),
        (MONITORING, "create", "pods", "exec", False),
        (MONITORING, "patch", "nodes", "", False),
        (PROBER, "watch", "services", "", True),
        (PROBER, "list", "pods", "", False),
        (PROBER, "update", "services", "status", False),
    ],
)
def test_roles_of_names_and_addresses(
    user: identity.User, verb: str, resource: str, part: str, expected: bool
) -> None:
    asked = Attributes(verb=verb, resource=resource, subresource=part)
    assert roles.allowed(user, asked) is expected


@pytest.mark.parametrize(
    ("verb", "resource", "part", "namespace", "expected"),
    [
        ("list", "pods", "", "kube-system", True),
        ("get", "nodes", "", "", True),
        ("get", "daemonsets", "", "kube-system", True),
        ("get", "leases", "", "kube-system", True),
        ("create", "events", "", "default", True),
        ("patch", "nodes", "", "", True),
        ("delete", "pods", "", "kube-system", True),
        ("get", "pods", "exec", "kube-system", True),
        ("delete", "pods", "", "shop", False),
        ("get", "pods", "exec", "shop", False),
        ("delete", "nodes", "", "", False),
        ("patch", "nodes", "status", "", False),
        ("update", "leases", "", "kube-system", False),
        ("get", "secrets", "", "kube-system", False),
        ("create", "pods", "", "kube-system", False),
        ("delete", "daemonsets", "", "kube-system", False),
    ],
)
def test_remediation_may_repair_and_nothing_else(
    verb: str, resource: str, part: str, namespace: str, expected: bool
) -> None:
    asked = Attributes(verb=verb, resource=resource, subresource=part, namespace=namespace)
    assert roles.allowed(REMEDIATION, asked) is expected


@pytest.mark.parametrize(
    ("name", "metrics", "resource"),
    [
        ("prometheus", True, "pods"),
        ("kube-state-metrics", True, "deployments"),
        ("kproxy-prober", False, "services"),
        ("somebody", False, None),
    ],
)
def test_accounts_of_pods_that_monitor(name: str, metrics: bool, resource: str | None) -> None:
    asked = Attributes(verb="get", path="/metrics")
    user = identity.account("kube-system", name)
    assert roles.allowed(user, asked) is roles.reads_metrics(user) is metrics
    if resource:
        assert roles.allowed(user, Attributes(verb="watch", resource=resource))
    elsewhere = identity.account("default", name)
    assert not roles.allowed(elsewhere, asked)
    assert not roles.allowed(elsewhere, Attributes(verb="watch", resource="services"))


def test_who_monitors_reads_nothing_else_that_is_no_resource() -> None:
    assert roles.allowed(MONITORING, Attributes(verb="get", path="/metrics"))
    assert not roles.allowed(MONITORING, Attributes(verb="post", path="/metrics"))
    assert not roles.allowed(MONITORING, Attributes(verb="get", path="/debug"))
    assert not roles.allowed(PROBER, Attributes(verb="get", path="/metrics"))


@pytest.mark.parametrize(
    ("verb", "resource", "subresource", "namespace", "may"),
    [
        ("delete", "pods", "", "kube-system", True),
        ("delete", "pods", "", "default", False),
        ("get", "pods", "exec", "kube-system", True),
        ("get", "pods", "exec", "default", False),
        ("patch", "nodes", "", "", True),
        ("delete", "nodes", "", "", False),
        ("create", "events", "", "default", True),
        ("list", "pods", "", "", True),
        ("get", "secrets", "", "kube-system", False),
        ("patch", "daemonsets", "", "kube-system", False),
    ],
)
def test_who_repairs_may_do_what_actions_do_and_nothing_else(
    verb: str, resource: str, subresource: str, namespace: str, may: bool
) -> None:
    asked = Attributes(verb=verb, resource=resource, subresource=subresource, namespace=namespace)
    for user in (
        identity.authenticated(identity.REMEDIATION),
        identity.account("kube-system", "kproxy-remediation"),
    ):
        assert roles.allowed(user, asked) is may
