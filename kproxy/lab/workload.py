"""What runs in the cluster: a user's manifests, made fit for the lab, and the traffic they invite.

Pure. The lab changes two things in what the user wrote, and says so:

* A container without a command becomes an echo server. It listens on the container's declared
  ports and on those numbers that a Service's ``targetPort`` names without declaring them.
* Loss of packets can only be counted where packets are counted, so if no Service of the workload
  has a UDP port, every Service gets a twin ``<name>-udp-probe`` with the same selector and port
  numbers over UDP. Proxies treat UDP and TCP ports of a Service alike.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from typing import Any

from kproxy import errors
from kproxy.api.meta import matches

Manifest = dict[str, Any]
PROBE_SUFFIX = "-udp-probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service port that traffic is sent to. ``node_port``: where nodes serve it; 0: nowhere."""

    number: int
    namespace: str
    service: str
    port_name: str
    protocol: str
    address: str
    port: int
    node_port: int = 0

    def __str__(self) -> str:
        name = f":{self.port_name}" if self.port_name else ""
        return f"{self.namespace}/{self.service}{name}"


RUN = ("Namespace", "Deployment", "Service")
"""The kinds that a comparison runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Manifests ready to be applied, and what the lab did to them."""

    manifests: tuple[Manifest, ...]
    notes: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> list[Manifest]:
        """Return the manifests of one kind."""
        return [manifest for manifest in self.manifests if manifest.get("kind") == kind]


def runnable(
    manifests: Sequence[Manifest], service_cidr: IPv4Network
) -> tuple[list[Manifest], list[errors.InvalidObject]]:
    """Return the manifests that a comparison can run, and why it cannot run the others."""
    good: list[Manifest] = []
    problems: list[errors.InvalidObject] = []
    for manifest in manifests:
        problem = _obstacle(manifest, service_cidr)
        if problem is None:
            good.append(manifest)
        else:
            problems.append(problem)
    return good, problems


def _obstacle(manifest: Manifest, service_cidr: IPv4Network) -> errors.InvalidObject | None:
    kind, meta = manifest["kind"], manifest["metadata"]
    label = f"{kind} {meta.get('namespace', '')}/{meta['name']}".replace(" /", " ")
    if kind not in RUN:
        return errors.InvalidObject(
            label,
            "kind",
            "the lab does not run this kind",
            remedy=f"it runs {', '.join(RUN)}; pods are those of a Deployment",
        )
    address = (manifest.get("spec") or {}).get("clusterIP") or "None"
    if kind == "Service" and address != "None" and ip_address(address) not in service_cidr:
        return errors.InvalidObject(
            label,
            "spec.clusterIP",
            f"{address} is not in the lab's range of service addresses, {service_cidr}",
            remedy="leave it out, or take an address of that range",
        )
    return None


def prepare(manifests: Sequence[Manifest]) -> Workload:
    """Return the workload of some manifests, which have been validated.

    Raises ``UsageError`` if nothing in it could be measured: no Service with a selector that
    selects the pods of a Deployment.
    """
    ours = [copy.deepcopy(manifest) for manifest in manifests]
    for manifest in ours:
        if manifest["kind"] != "Namespace":
            manifest["metadata"].setdefault("namespace", "default")
    ours = [*_missing_namespaces(ours), *ours]
    services = [s for s in ours if s["kind"] == "Service" and _backends(s, ours)]
    if not services:
        raise errors.UsageError(
            "the manifests hold no Service that selects the pods of a Deployment",
            remedy="give at least one of each, with matching spec.selector and template labels",
        )
    notes: list[str] = []
    if not any(port.get("protocol") == "UDP" for s in services for port in _ports(s)):
        twins = [_twin(service, ours) for service in services]
        services += twins
        ours += twins
        notes.append(
            "no Service has a UDP port: packets are counted at twins of the Services over UDP "
            f"(…{PROBE_SUFFIX})"
        )
    for service in services:
        for deployment in _backends(service, ours):
            notes += _declare_ports(service, deployment)
    return Workload(manifests=tuple(ours), notes=tuple(dict.fromkeys(notes)))


def targets(services: Iterable[Manifest]) -> list[Target]:
    """Return the service ports to send traffic to, from Services as the API server has them."""
    found: list[Target] = []
    ordered = sorted(services, key=lambda s: (s["metadata"]["namespace"], s["metadata"]["name"]))
    for service in ordered:
        address = service["spec"].get("clusterIP", "")
        if not address or address == "None" or not service["spec"].get("selector"):
            continue
        for port in _ports(service):
            found.append(
                Target(
                    number=len(found),
                    namespace=service["metadata"]["namespace"],
                    service=service["metadata"]["name"],
                    port_name=port.get("name", ""),
                    protocol=port.get("protocol", "TCP"),
                    address=address,
                    port=port["port"],
                    node_port=port.get("nodePort", 0),
                )
            )
    return found


def _missing_namespaces(manifests: Sequence[Manifest]) -> list[Manifest]:
    declared = {m["metadata"]["name"] for m in manifests if m["kind"] == "Namespace"}
    used = {m["metadata"]["namespace"] for m in manifests if m["kind"] != "Namespace"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in sorted(used - declared)
    ]


def _ports(service: Manifest) -> list[Manifest]:
    return list(service["spec"].get("ports") or [])


def _backends(service: Manifest, manifests: Sequence[Manifest]) -> list[Manifest]:
    selector = service["spec"].get("selector")
    return [
        deployment
        for deployment in manifests
        if deployment["kind"] == "Deployment"
        and deployment["metadata"]["namespace"] == service["metadata"]["namespace"]
        and matches(selector, _template(deployment)["metadata"].get("labels"))
    ]


def _template(deployment: Manifest) -> Manifest:
    template: Manifest = deployment["spec"]["template"]
    template.setdefault("metadata", {})
    return template


def _twin(service: Manifest, manifests: Sequence[Manifest]) -> Manifest:
    containers = _containers(_backends(service, manifests)[0])
    ports = [
        {
            "name": f"port-{port['port']}",
            "port": port["port"],
            "protocol": "UDP",
            "targetPort": _number(port, service, containers),
        }
        for port in _ports(service)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service["metadata"]["name"] + PROBE_SUFFIX,
            "namespace": service["metadata"]["namespace"],
        },
        "spec": {"selector": dict(service["spec"]["selector"]), "ports": ports},
    }


def _containers(deployment: Manifest) -> list[Manifest]:
    return list(_template(deployment)["spec"]["containers"])


def _declare_ports(service: Manifest, deployment: Manifest) -> Iterator[str]:
    """Let the deployment's first container listen on what the service wants of it."""
    containers = _containers(deployment)
    where = f"Deployment {deployment['metadata']['namespace']}/{deployment['metadata']['name']}"
    for port in _ports(service):
        protocol = port.get("protocol", "TCP")
        number = _number(port, service, containers)
        if any(_listens(container, protocol, number) for container in containers):
            continue
        containers[0].setdefault("ports", []).append(
            {"containerPort": number, "protocol": protocol}
        )
        if not service["metadata"]["name"].endswith(PROBE_SUFFIX):
            yield f"{where}: its echo server also listens on {protocol} {number}, undeclared there"


def _listens(container: Manifest, protocol: str, number: int) -> bool:
    return any(
        port["containerPort"] == number and port.get("protocol", "TCP") == protocol
        for port in container.get("ports") or []
    )


def _number(port: Manifest, service: Manifest, containers: Sequence[Manifest]) -> int:
    """Return the number that a port's ``targetPort`` means in these containers."""
    wanted = port.get("targetPort") or port["port"]
    if isinstance(wanted, int):
        return wanted
    for container in containers:
        for declared in container.get("ports") or []:
            if declared.get("name") == wanted:
                return int(declared["containerPort"])
    raise errors.InvalidObject(
        f"Service {service['metadata']['namespace']}/{service['metadata']['name']}",
        "spec.ports[].targetPort",
        f"no container of the pods it selects has a port named {wanted!r}",
        remedy="name the port in the Deployment, or write its number",
    )
