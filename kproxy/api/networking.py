"""Objects of ``networking.k8s.io/v1``: ServiceCIDR."""

from .core import Condition
from .meta import Object, ObjectMeta


class ServiceCIDRSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """What a user wants of a ServiceCIDR."""

    cidrs: list[str] | None = None


class ServiceCIDRStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the controller reports of a ServiceCIDR."""

    conditions: list[Condition] | None = None


class ServiceCIDR(Object, frozen=True, kw_only=True, rename="camel"):
    """A range from which ClusterIPs are given out (KEP-1880)."""

    metadata: ObjectMeta
    spec: ServiceCIDRSpec = ServiceCIDRSpec()
    status: ServiceCIDRStatus | None = None
