"""What an administrator applies to a fresh cluster: the node proxies, and the cluster's DNS. Pure.

As on a kubeadm cluster, the proxies are a DaemonSet in ``kube-system``, and the name servers a
Deployment behind the Service ``kube-dns``.
"""

import json
import sys
from typing import Any

from kproxy.controlplane.access import kubeconfigs
from kproxy.lab.site import DNS_ADDRESS, DNS_ADDRESS6, PODS, PODS6
from kproxy.lab.whole.monitoringtargets import DNS_PORT, METRICS, PROBER_PORT, PROXY_PORT
from kproxy.lab.whole.places import Places

Object = dict[str, Any]

NAMESPACE = "kube-system"
PROXY, DNS, PROBER = "kube-proxy", "kube-dns", "kproxy-prober"
HEALTHZ_PORT = 10256
DNS_REPLICAS = 2
DNS_HEALTH_PORT = 8080
_NODE_NAME = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}


def proxy_configuration(places: Places) -> Object:
    """Return the proxies' KubeProxyConfiguration; what the lab's file says of it goes first."""
    file = places.site.file
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": file.mode,
        "clusterCIDR": f"{PODS},{PODS6}" if places.site.dual else str(PODS),
        "detectLocalMode": "ClusterCIDR",
        "clientConnection": {"kubeconfig": str(places.kubeconfig(kubeconfigs.PROXY))},
        "healthzBindAddress": f"0.0.0.0:{HEALTHZ_PORT}",
        # A limit of connections belongs to the machine, not to a node that is a namespace of it.
        "conntrack": {"maxPerCore": 0, "min": 0},
        **({"metricsBindAddress": f"0.0.0.0:{PROXY_PORT}"} if places.site.monitors else {}),
        **file.proxy,
    }


def write_configuration(places: Places) -> None:
    """Write the proxies' configuration into its file."""
    places.files.proxy_config.write_text(json.dumps(proxy_configuration(places)))


def proxy(places: Places) -> Object:
    """Return the DaemonSet of the proxies, one on every node whatever its taints."""
    command = [sys.executable, "-m", "kproxy", "proxy"]
    command += [f"--config={places.files.proxy_config}"]
    command += ["--hostname-override=$(NODE_NAME)", "--make-before-break"]
    labels = {"k8s-app": PROXY}
    container = {
        "name": PROXY,
        "image": "kproxy",
        "command": command,
        "env": [_NODE_NAME],
        # No readiness probe: it is ready when it answers health checks itself. During a
        # hand-over a probe would be answered by the other one.
        "ports": [
            {"name": "healthz", "containerPort": HEALTHZ_PORT},
            *_watched(places, PROXY_PORT),
        ],
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": HEALTHZ_PORT},
            "initialDelaySeconds": 15,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
        },
    }
    spec = {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    return _daemon_set(PROXY, labels, spec)


def _daemon_set(name: str, labels: Object, spec: Object) -> Object:
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def manifests(places: Places) -> list[Object]:
    """Return all add-ons that the lab's file asks for."""
    found = [proxy(places), *(dns(places) if places.site.file.dns else [])]
    return [*found, prober(places)] if places.site.monitors else found


def prober(places: Places) -> Object:
    """Return the DaemonSet that asks every Service how it fares, from a pod of every node."""
    labels = {"k8s-app": PROBER}
    container = {
        "name": PROBER,
        "image": PROBER,
        "args": [f"--kubeconfig={places.kubeconfig(kubeconfigs.PROBER)}"],
        "env": [_NODE_NAME],
        "ports": [{"name": METRICS, "containerPort": PROBER_PORT}],
        "readinessProbe": _probe("/readyz", period=2, port=PROBER_PORT),
    }
    spec = {"tolerations": [{"operator": "Exists"}], "containers": [container]}
    return _daemon_set(PROBER, labels, spec)


def dns(places: Places) -> list[Object]:
    """Return the Service and the Deployment of the cluster's name servers."""
    labels = {"k8s-app": DNS}
    meta = {"name": DNS, "namespace": NAMESPACE, "labels": labels}
    container = {
        "name": DNS,
        "image": "kproxy-dns",
        "args": [f"--kubeconfig={places.kubeconfig(kubeconfigs.DNS)}"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
            *_watched(places, DNS_PORT),
        ],
        "readinessProbe": _probe("/ready", period=2),
        "livenessProbe": {**_probe("/health", period=10), "initialDelaySeconds": 60},
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "dnsPolicy": "Default",
            "priorityClassName": "system-cluster-critical",
            "containers": [container],
        },
    }
    selector = {"matchLabels": labels}
    spec = {"replicas": DNS_REPLICAS, "selector": selector, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
    return [_dns_service(places, meta, labels), deployment]


def _dns_service(places: Places, meta: Object, labels: Object) -> Object:
    addresses = [str(DNS_ADDRESS)] + [str(DNS_ADDRESS6)] * places.site.dual
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "selector": labels,
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": ["IPv4", "IPv6"][: len(addresses)],
            "ipFamilyPolicy": "RequireDualStack" if places.site.dual else "SingleStack",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                *([{"name": METRICS, "port": DNS_PORT}] if places.site.monitors else []),
            ],
        },
    }


def _watched(places: Places, port: int) -> list[Object]:
    """Return the port of a container's metrics, where somebody asks for them."""
    return [{"name": METRICS, "containerPort": port}] if places.site.monitors else []


def _probe(path: str, period: int, port: int = DNS_HEALTH_PORT) -> Object:
    ask = {"path": path, "port": port}
    return {"httpGet": ask, "periodSeconds": period, "timeoutSeconds": 5}
