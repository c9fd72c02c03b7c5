"""What the name server and the load balancer may do, and nothing else."""

import pytest

from kproxy.controlplane.access import identity, roles
from kproxy.controlplane.access.roles import Attributes

DNS = identity.authenticated(identity.DNS)
BALANCER = identity.authenticated(identity.BALANCER)


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
    ],
)
def test_roles_of_names_and_addresses(
    user: identity.User, verb: str, resource: str, part: str, expected: bool
) -> None:
    asked = Attributes(verb=verb, resource=resource, subresource=part)
    assert roles.allowed(user, asked) is expected
