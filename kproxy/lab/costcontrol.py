"""Measures what a pod's end costs in the control plane: from the node's report to the slice.

The real API server and the real controllers run in a network namespace of their own. One pod of a
service is reported as failed, as its kubelet would, and the controllers' log tells when the
EndpointSlice no longer had it: the report, the API server, both watches and the controller
together.
"""

import sys
import time
from pathlib import Path

from kproxy import costs
from kproxy.api import catalog, kinds
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import Object, ObjectClient
from kproxy.client.rest import Rest
from kproxy.controlplane import podstatus
from kproxy.errors import MeasurementError
from kproxy.lab.costfit import Sample
from kproxy.lab.eventlog import EventLog
from netns.host import LiveHost

NAMESPACE = "costs"
NAME = "pods"
NODE = "node1"
PODS = 3
PATIENCE_S = 60.0
QUIET_S = 0.5
"""So long nothing happens before a pod ends: a pod's end finds all processes asleep."""
SINCE = "2026-01-01T00:00:00Z"


def measure(host: LiveHost, directory: Path, kubeconfig: Path, runs: int) -> list[Sample]:
    """Measure on an API server that runs already, ``runs`` times after one that does not count.

    Raises MeasurementError if the controllers do not answer.
    """
    directory.mkdir()
    log = directory / "manager.log"
    command = (sys.executable, "-m", "kproxy.controlplane.manager")
    events = EventLog(directory)
    rest = Rest(load_kubeconfig(kubeconfig), agent="kproxy-bench")
    # Alone, and without those who would take the node, which has no kubelet, for lost.
    alone = ("--leader-elect=false", "--healthz-bind-address=", "--controllers=endpointslice")
    options = ("--kubeconfig", str(kubeconfig), *alone)
    process = host.spawn((*command, *options), stdout=log, stderr=log)
    try:
        api = ObjectClient(rest)
        host.call(_fill, api)
        _await(events, 0)
        return [_sample(host, api, events) for _ in range(runs + 1)][1:]
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        rest.close()
        events.close()


def _fill(api: ObjectClient) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    api.create(kinds.NAMESPACE, namespace)
    api.create(kinds.NODE, {"metadata": {"name": NODE}})
    meta = {"namespace": NAMESPACE, "name": NAME}
    service = {"selector": {"app": NAME}, "ports": [{"port": 53, "protocol": "UDP"}]}
    for number in range(PODS):
        labelled = {**meta, "name": f"{NAME}-{number}", "labels": {"app": NAME}}
        containers = [{"name": "c", "image": "echo"}]
        spec = {"nodeName": NODE, "containers": containers}
        api.create(catalog.POD, {"metadata": labelled, "spec": spec})
        api.update_status(catalog.POD, _pod(number, "Running"))
    api.create(kinds.SERVICE, {"metadata": meta, "spec": service})


def _pod(number: int, phase: str) -> Object:
    """Return what a kubelet reports of a pod."""
    container = podstatus.ContainerState(name="c", running_since=SINCE, ready=True, started=True)
    facts = podstatus.Facts(
        phase=phase,
        init=[],
        containers=[container],
        addresses=[f"10.128.0.{number + 1}"],
        host_ips=["192.0.2.1"],
        started=SINCE,
    )
    status = podstatus.status(facts, podstatus.Conditions(()).told(facts, SINCE))
    return {"metadata": {"namespace": NAMESPACE, "name": f"{NAME}-{number}"}, "status": status}


def _sample(host: LiveHost, api: ObjectClient, events: EventLog) -> Sample:
    """Take a pod out of its slice, and put it in again."""
    time.sleep(QUIET_S)
    begin = time.monotonic_ns()
    host.call(api.update_status, catalog.POD, _pod(0, "Failed"))
    until = _await(events, begin)
    host.call(api.update_status, catalog.POD, _pod(0, "Running"))
    _await(events, until + 1)
    return Sample(
        process=costs.MANAGER,
        place=costs.SLICE,
        mode="",
        services=0,
        endpoints=0,
        seconds=(until - begin) / 1e9,
    )


def _await(events: EventLog, since_ns: int) -> int:
    """Wait until the controllers have written a slice; return when they had."""
    event = events.wait(
        lambda event: event.msg in ("slice created", "slice updated", "reconcile failed"),
        why="the controllers to write an EndpointSlice",
        timeout=PATIENCE_S,
        since_ns=since_ns,
    )
    if event.msg == "reconcile failed":
        raise MeasurementError(f"controllers: {event.fields}")
    return event.mono_ns
