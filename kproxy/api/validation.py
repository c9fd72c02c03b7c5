"""Is an object allowed to be? All that is wrong with it, in Kubernetes' words, with field paths.

Stricter than Kubernetes nowhere but in what this project cannot do (``matchExpressions``); laxer
where it does not matter to it.
"""

from collections.abc import Callable
from typing import Any

from kproxy.errors import InvalidObject

from . import catalog, checks, codec, kinds, service_rules, workload_rules
from .checks import Checker
from .meta import Object
from .networking import ServiceCIDR


def validate(obj: Object) -> list[InvalidObject]:
    """Return everything that is wrong with a decoded object of a known kind."""
    kind = kinds.of(obj)
    meta = obj.metadata  # type: ignore[attr-defined]  # every kind has it
    check = Checker(codec.label_of(kind, meta.namespace, meta.name))
    if kind in (kinds.SERVICE, kinds.NAMESPACE):
        pattern = checks.DNS_1035_LABEL if kind is kinds.SERVICE else checks.DNS_LABEL
        check.name("metadata.name", meta.name, pattern)
    else:
        check.name("metadata.name", meta.name, checks.DNS_SUBDOMAIN, 253)
    if kind.namespaced and meta.namespace:
        check.name("metadata.namespace", meta.namespace)
    elif not kind.namespaced and meta.namespace:
        check.fault("metadata.namespace", f"a {kind.name} has no namespace", "remove it")
    check.labels("metadata.labels", meta.labels)
    rule = _RULES.get(kind)
    if rule is not None:
        rule(check, obj)
    return check.problems


def _check_service_cidr(check: Checker, obj: ServiceCIDR) -> None:
    for index, text in enumerate(obj.spec.cidrs or ()):
        check.network(f"spec.cidrs[{index}]", text)


_RULES: dict[kinds.Kind, Callable[[Checker, Any], None]] = {
    kinds.SERVICE: service_rules.check_service,
    kinds.ENDPOINT_SLICE: service_rules.check_slice,
    catalog.POD: workload_rules.check_pod,
    kinds.NODE: workload_rules.check_node,
    catalog.DEPLOYMENT: workload_rules.check_deployment,
    catalog.DAEMON_SET: workload_rules.check_daemon_set,
    catalog.REPLICA_SET: workload_rules.check_replica_set,
    catalog.STATEFUL_SET: workload_rules.check_stateful_set,
    kinds.SERVICE_CIDR: _check_service_cidr,
}
