"""The DaemonSets of the lab's proxies, their configuration, and the pod that cleans a node. Pure.

A restart policy is a part of the pod around the proxy, not of the proxy: before it starts, or as
a preStop hook, ``kproxy proxy --cleanup`` is run. A cluster whose nodes are in different modes has
a DaemonSet for each, and a node's label says which one runs there.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kproxy.lab.setups import Policy

Object = dict[str, Any]
NAMESPACE = "kube-system"
CONTAINER = "kube-proxy"
"""Name of the proxy's container in each of its pods, and of the DaemonSet if there is one only."""
LABELS = {"k8s-app": CONTAINER}
MODE_LABEL = "kproxy/proxy-mode"
"""A node's label: the mode in which a proxy runs there; no proxy where it is missing."""
HEALTHZ_PORT = 10256
MARK_BITS = (14, 13)
"""By these versions of the proxy differ in :attr:`ProxySet.version`: each service's traffic is
marked, so another bit changes rules everywhere, as another version of a proxy does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySet:
    """The proxies of one mode. ``selects``: they run where :data:`MODE_LABEL` says so only."""

    mode: str
    policy: Policy = Policy.KEEP
    selects: bool = False
    version: int = 0

    @property
    def name(self) -> str:
        """Return the DaemonSet's name."""
        return f"{CONTAINER}-{self.mode}" if self.selects else CONTAINER

    @property
    def key(self) -> tuple[str, str]:
        """Return kind and key of the DaemonSet, as :func:`podviews.workload` does."""
        return "DaemonSet", f"{NAMESPACE}/{self.name}"

    @property
    def file(self) -> str:
        """Return the name of its configuration's file: each version has its own."""
        return f"{self.name}-{self.version}.conf" if self.version else f"{self.name}.conf"


def configuration(
    proxies: ProxySet, cluster_cidr: str, kubeconfig: Path, settings: Mapping[str, Any]
) -> Object:
    """Return what the proxies are told; all else is left as kube-proxy ships it."""
    found: Object = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": proxies.mode,
        "clusterCIDR": cluster_cidr,
        "detectLocalMode": "ClusterCIDR",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        # A limit of connections belongs to the machine, not to a node that is a namespace of it.
        "conntrack": {"maxPerCore": 0, "min": 0},
        **settings,
    }
    bit = MARK_BITS[proxies.version % len(MARK_BITS)]
    if bit != MARK_BITS[0]:
        section = "nftables" if proxies.mode == "nftables" else "iptables"
        found[section] = {**found.get(section, {}), "masqueradeBit": bit}
    return found


def daemon_set(proxies: ProxySet, kubeconfig: Path, directory: Path) -> Object:
    """Return the DaemonSet; its configuration lies in ``directory``."""
    spec: Object = {
        "hostNetwork": True,
        "containers": [_container(proxies, kubeconfig, directory / proxies.file)],
    }
    labels = dict(LABELS)
    if proxies.selects:
        labels["mode"] = proxies.mode
        spec["nodeSelector"] = {MODE_LABEL: proxies.mode}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": proxies.name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _container(proxies: ProxySet, kubeconfig: Path, config: Path) -> Object:
    command = [*_PROXY, f"--config={config}", f"--kubeconfig={kubeconfig}"]
    command += ["--hostname-override=$(NODE_NAME)", "--make-before-break"]
    cleanup = [*_PROXY, "--cleanup"]
    if proxies.policy is Policy.FLUSH_AT_START:
        # An init container would not run again where the kubelet restarts a container alone.
        script = '"$1" -m kproxy proxy --cleanup; exec "$@"'
        command = ["sh", "-c", script, "sh", *command]
    container: Object = {
        "name": CONTAINER,
        "image": "kproxy",
        "command": command,
        # It is ready when it answers health checks itself: after a hand-over.
        "ports": [{"name": "healthz", "containerPort": HEALTHZ_PORT}],
    }
    if proxies.policy is Policy.CLEANUP_AT_EXIT:
        container["lifecycle"] = {"preStop": {"exec": {"command": cleanup}}}
    return container


def cleaner(node: str, name: str, spared: str) -> Object:
    """Return a pod that removes what proxies have left on a node, but for the mode ``spared``."""
    flag = f"--cleanup-except={spared}" if spared else "--cleanup"
    container = {"name": "cleanup", "image": "kproxy", "command": [*_PROXY, flag]}
    spec = {
        "nodeName": node,
        "hostNetwork": True,
        "restartPolicy": "Never",
        "containers": [container],
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


_PROXY = (sys.executable, "-m", "kproxy", "proxy")
