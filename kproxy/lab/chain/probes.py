"""The cluster's own vital signs: two processes that change something steadily, and log it.

    python -m kproxy.lab.chain.probes chain-changes --kubeconfig FILE [--interval 0.5]
    python -m kproxy.lab.chain.probes chain-pods --kubeconfig FILE [--interval 3]

``chain-changes`` lets a Service's EndpointSlice name one endpoint and two in turn, by itself, as
somebody would who keeps endpoints by hand. ``chain-pods`` deletes the one pod of a Deployment on
each node, at once and without grace, whenever it runs. Both speak to the API servers' virtual IP
like any client, give up a request after ``--timeout`` seconds, and write an event (``change``,
``ask``) for every attempt: when it began, whether it was acknowledged, and the version that the
answer told. SIGTERM ends them.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, discovery, kinds
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.monitoring.prober import targets

Object = dict[str, Any]

NAMESPACE = "default"
CHANGES, PODS = "chain-changes", "chain-pods"
CHANGE, ASK = "change", "ask"
"""What the two processes call an attempt, in their log lines."""
INTERVALS = {CHANGES: 0.5, PODS: 3.0}
TIMEOUT = 2.0
_LABELS = {"app": PODS}
_ENDPOINTS = ("10.244.250.1", "10.244.250.2")
"""Nobody's addresses: nothing is ever sent to that Service."""


def manifests(nodes: Iterable[str]) -> list[Object]:
    """Return the objects that the probes change: a Service, and a Deployment for each node."""
    return [_service(), _slice(1), *map(_deployment, nodes)]


def command(what: str, kubeconfig: Path) -> list[str]:
    """Return the command that is a probe: ``what`` is one of INTERVALS."""
    program = [sys.executable, "-m", "kproxy.lab.chain.probes", what]
    return [*program, f"--kubeconfig={kubeconfig}"]


def _service() -> Object:
    ports = [{"name": "echo", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    unprobed = {targets.ANNOTATION: str(targets.Wish.NONE)}
    meta = {"name": CHANGES, "namespace": NAMESPACE, "annotations": unprobed}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports}}


def _slice(endpoints: int) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": CHANGES,
            "namespace": NAMESPACE,
            "labels": {discovery.SERVICE_NAME_LABEL: CHANGES},
        },
        "addressType": "IPv4",
        "ports": [{"name": "echo", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}}
            for address in _ENDPOINTS[:endpoints]
        ],
    }


def _deployment(node: str) -> Object:
    labels = {**_LABELS, "node": node}
    spec = {
        # In the node's own network, because making one is not what is to be measured.
        "hostNetwork": True,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": PODS, "image": "pause", "command": ["sleep", "infinity"]}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{PODS}-{node}", "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


@dataclass(slots=True)
class Changer:
    """Changes the endpoints of the Service, once each time it is called."""

    api: ObjectClient
    count: int = 0

    def __call__(self) -> dict[str, Any] | None:
        """Make the next change; return what is to be logged of it. Raises KproxyError."""
        self.count += 1
        patch = {"endpoints": _slice(1 + self.count % 2)["endpoints"]}
        changed = self.api.patch(kinds.ENDPOINT_SLICE, NAMESPACE, CHANGES, patch)
        return {"version": int(changed["metadata"]["resourceVersion"])}


@dataclass(slots=True)
class Asker:
    """Has the pods made again, each as soon as it runs."""

    api: ObjectClient
    deleted: set[str] = field(default_factory=set)

    def __call__(self) -> dict[str, Any] | None:
        """Delete the pods that run, each once; return their names, or None. Raises KproxyError."""
        names = []
        for pod in self.api.list_objects(catalog.POD, NAMESPACE, _LABELS):
            meta = pod["metadata"]
            running = (pod.get("status") or {}).get("phase") == "Running"
            if running and meta["uid"] not in self.deleted:
                self.api.delete(catalog.POD, NAMESPACE, meta["name"], grace=0, uid=meta["uid"])
                self.deleted.add(meta["uid"])
                names.append(meta["name"])
        return {"pods": names} if names else None


def steadily(
    work: Callable[[], dict[str, Any] | None], what: str, interval: float, log: logs.Log
) -> None:
    """Do the work every ``interval`` seconds and log each attempt; never returns.

    What could not be done in its time is left out, not made up for.
    """
    due = time.monotonic()
    while True:
        begun = time.monotonic_ns()
        try:
            done = work()
        except (errors.KproxyError, OSError) as error:
            log.info(what, begun_ns=begun, ok=False, error=str(error))
        else:
            if done is not None:
                log.info(what, begun_ns=begun, ok=True, **done)
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def main(arguments: list[str]) -> int:
    """Run as a process; ends by a signal only."""
    parser = argparse.ArgumentParser(prog="kproxy.lab.chain.probes", description=__doc__)
    parser.add_argument("what", choices=tuple(INTERVALS))
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--interval", type=float)
    parser.add_argument("--timeout", type=float, default=TIMEOUT)
    given = parser.parse_args(arguments)
    rest = Rest(load_kubeconfig(given.kubeconfig), agent=given.what, timeout=given.timeout)
    api = ObjectClient(rest)
    interval = given.interval or INTERVALS[given.what]
    log = logs.Log(given.what)
    if given.what == CHANGES:
        steadily(Changer(api), CHANGE, interval, log)
    steadily(Asker(api), ASK, interval, log)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
