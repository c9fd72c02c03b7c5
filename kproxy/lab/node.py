"""The kubelet of one node of a lab, as a process of its own in the node's host.

    python -m kproxy.lab.node --state-dir DIR --node node1 --cluster-cidr 10.244.0.0/16

Registers the Node, follows the pods that are assigned to it, and runs them through
:class:`kproxy.lab.podruntime.NetnsRuntime`. SIGTERM ends it and leaves its pods running.
"""

import argparse
import os
import signal
import sys
import threading
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType

from kproxy import errors, logs
from kproxy.api import core, kinds
from kproxy.client.informer import Informer, Selection
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.controlplane.kubelet import Kubelet
from kproxy.lab import layout, plan
from kproxy.lab.podruntime import NetnsRuntime
from netns.errors import NetnsError
from netns.lab import Lab


def register(client: ObjectClient, node: plan.NodePlan) -> None:
    """Create the Node object, unless a former kubelet did."""
    meta = {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}}
    status = {
        "addresses": [
            {"type": "InternalIP", "address": str(node.address)},
            {"type": "Hostname", "address": node.name},
        ],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
    }
    obj = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta,
        "spec": {"podCIDR": str(node.pod_cidr), "podCIDRs": [str(node.pod_cidr)]},
        "status": status,
    }
    try:
        client.create(kinds.NODE, obj)
    except errors.Conflict:
        return
    client.update_status(kinds.NODE, obj)


def follow(rest: Rest, kubelet: Kubelet, node: str, log: logs.Log) -> Informer[core.Pod]:
    """Return an informer (not started) that tells the kubelet of its pods."""

    def change(old: core.Pod | None, new: core.Pod | None) -> None:
        if not informer.synced:
            return  # the first list is handed over whole
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            uid = old.metadata.uid
            kubelet.post(lambda: kubelet.deleted(uid))
        if new is not None:
            kubelet.post(lambda: kubelet.changed(new))

    def synced() -> None:
        pods = list(informer.objects.values())
        kubelet.post(lambda: kubelet.replace(pods))

    informer = Informer(
        rest,
        core.Pod,
        on_change=change,
        on_synced=synced,
        on_problem=lambda problem: log.warning("pods", error=str(problem)),
        selection=Selection(field_selector=f"spec.nodeName={node}"),
    )
    return informer


def run(state_dir: Path, node: plan.NodePlan, log: logs.Log) -> None:
    """Supervise the node's pods until SIGTERM."""
    with Lab.attach(state_dir) as lab:
        files = layout.Layout(lab.scratch)
        rest = Rest(load_kubeconfig(files.kubeconfig), agent=f"kubelet/{node.name}")
        client = ObjectClient(rest)
        register(client, node)
        runtime = NetnsRuntime(lab, node, files, dict(os.environ))
        kubelet = Kubelet(node.name, client, runtime, host_ip=str(node.address), log=log)

        def stop(number: int, frame: FrameType | None) -> None:
            kubelet.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        sender = threading.Thread(target=kubelet.outbox.run, name="outbox", daemon=True)
        informer = follow(rest, kubelet, node.name, log)
        sender.start()
        informer.start()
        try:
            kubelet.run()
        finally:
            informer.stop()
            kubelet.outbox.stop()
            kubelet.close()
            rest.close()


def main(arguments: list[str]) -> int:
    """Run as a process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.node", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--cluster-cidr", type=IPv4Network, default=plan.CLUSTER_CIDR)
    options = parser.parse_args(arguments)
    log = logs.Log("kubelet")
    everyone = plan.Plan(nodes=plan.MAX_NODES, cluster_cidr=options.cluster_cidr)
    try:
        run(options.state_dir, everyone.node(options.node), log)
    except (errors.KproxyError, NetnsError) as error:
        log.error("kubelet ended", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
