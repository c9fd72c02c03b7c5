"""What an administrator applies to a fresh cluster: the node proxies, and the cluster's DNS. Pure.

As on a kubeadm cluster, the proxies are a DaemonSet in ``kube-system``.
"""

import json
import sys
from typing import Any

from kproxy.controlplane.access import kubeconfigs
from kproxy.lab.site import PODS, PODS6
from kproxy.lab.whole.places import Places

Object = dict[str, Any]

NAMESPACE = "kube-system"
PROXY = "kube-proxy"
HEALTHZ_PORT = 10256


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
    name = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container = {
        "name": PROXY,
        "image": "kproxy",
        "command": command,
        "env": [name],
        # No readiness probe: it is ready when it answers health checks itself. During a
        # hand-over a probe would be answered by the other one.
        "ports": [{"name": "healthz", "containerPort": HEALTHZ_PORT}],
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": HEALTHZ_PORT},
            "initialDelaySeconds": 15,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
        },
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": PROXY, "namespace": NAMESPACE, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
