"""The controller manager: the reconcile loops of a cluster in one process.

    python -m kproxy.controlplane.manager --kubeconfig FILE

Keeps nothing of its own: killed and started again it goes on from what the API says. Each
controller works in a thread, on keys that informers queue for it; a key that fails comes back
after a back-off.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from kproxy import costs, errors, logs
from kproxy.api import apps, core, discovery
from kproxy.api.pods import Pod
from kproxy.client import informer, kubeconfig, objects, rest

from .controllers import daemonset, deployment, endpointslice, owned
from .workqueue import WorkQueue


class Controller(Protocol):
    """What brings one object, given by its key, nearer to what it should be."""

    def reconcile(self, key: str) -> None:
        """Do what is to be done now. Raises KproxyError: try again."""
        ...


class Loop:
    """A controller, the queue of its keys and the thread that works on them."""

    def __init__(self, name: str, log: logs.Log) -> None:
        self.queue = WorkQueue()
        self._log = log
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self, controller: Controller) -> None:
        """Begin to work."""
        thread = threading.Thread(
            target=self._run, args=(controller,), name=self._name, daemon=True
        )
        thread.start()
        # Only now: somebody may be about to join it, and one that has not started cannot be.
        self._thread = thread

    def join(self) -> None:
        """Wait for the end of the work; its queue must have been stopped."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, controller: Controller) -> None:
        while (key := self.queue.get()) is not None:
            try:
                controller.reconcile(key)
            except errors.Conflict as error:
                self._log.debug("conflict", loop=self._name, key=key, error=str(error))
                self.queue.retry(key)
            except errors.KproxyError as error:
                wait = self.queue.retry(key)
                self._log.warning(
                    "reconcile failed", loop=self._name, key=key, error=str(error), retry_s=wait
                )
            except Exception as error:
                # A bug that one object brings to light must not stop the others.
                wait = self.queue.retry(key)
                self._log.error(
                    "reconcile broke", loop=self._name, key=key, error=repr(error), retry_s=wait
                )
            else:
                self.queue.succeeded(key)


class Manager:
    """All controllers of a cluster, fed by one informer per kind."""

    def __init__(self, client: rest.Rest, log: logs.Log, cost: costs.Costs = costs.FREE) -> None:
        self._client = client
        self._log = log
        self._stopped = threading.Event()
        cluster = objects.ObjectClient(client)
        self._deployments = Loop("deployment", log)
        self._daemon_sets = Loop("daemonset", log)
        self._slices = Loop("endpointslice", log)
        self._slice_controller = endpointslice.EndpointSliceController(
            cluster, log, enqueue=self._slices.queue.add, cost=cost
        )
        self._work: list[tuple[Loop, Controller]] = [
            (self._deployments, deployment.DeploymentController(cluster, log)),
            (self._daemon_sets, daemonset.DaemonSetController(cluster, log)),
            (self._slices, self._slice_controller),
        ]
        handlers: list[tuple[type[Any], Callable[[Any, Any], None]]] = [
            (core.Service, self._slice_controller.service_changed),
            (discovery.EndpointSlice, self._slice_controller.slice_changed),
            (core.Node, self._node_changed),
            (Pod, self._pod_changed),
            (apps.Deployment, lambda old, new: self._changed(self._deployments, old, new)),
            (apps.DaemonSet, lambda old, new: self._changed(self._daemon_sets, old, new)),
        ]
        self._informers = {
            wanted: informer.Informer(client, wanted, on_change=handler, on_problem=self._problem)
            for wanted, handler in handlers
        }

    def start(self) -> None:
        """Begin to work, in threads; nothing is written before everything has been listed."""
        for one in self._informers.values():
            one.start()
        # A thread, because the API server may be away for long.
        threading.Thread(target=self._begin, name="begin", daemon=True).start()

    def stop(self) -> None:
        """End all work, also requests in hand; the client is closed then."""
        self._stopped.set()
        for one in self._informers.values():
            one.stop()
        for loop, _ in self._work:
            loop.queue.stop()
        self._client.close()
        for loop, _ in self._work:
            loop.join()

    def _begin(self) -> None:
        for one in self._informers.values():
            one.wait_synced()
        if self._stopped.is_set():
            return
        self._log.info("synced")
        for loop, controller in self._work:
            loop.start(controller)

    def _changed(self, loop: Loop, old: Any, new: Any) -> None:
        of = (new or old).metadata
        loop.queue.add(owned.key(of.namespace, of.name))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self._slice_controller.pod_changed(old, new)
        loops = {"Deployment": self._deployments, "DaemonSet": self._daemon_sets}
        for pod in (old, new):
            for owner in (pod.metadata.owner_references if pod else None) or ():
                if pod and owner.controller and owner.kind in loops:
                    loops[owner.kind].queue.add(owned.key(pod.metadata.namespace, owner.name))

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        """Look at everything that runs on nodes, unless it is only a sign of life."""
        if old is not None and new is not None and _use(old) == _use(new):
            return
        for wanted, loop in (
            (apps.Deployment, self._deployments),
            (apps.DaemonSet, self._daemon_sets),
        ):
            for namespace, name in self._informers[wanted].objects:
                loop.queue.add(owned.key(namespace, name))

    def _problem(self, error: errors.KproxyError) -> None:
        self._log.warning("API server", error=str(error))


def _use(node: core.Node) -> tuple[Any, ...]:
    """Return what of a node matters for where pods go."""
    conditions = (node.status.conditions if node.status else None) or ()
    ready = any(one.type == "Ready" and one.status == "True" for one in conditions)
    return ready, node.spec.unschedulable, node.spec.taints, node.metadata.labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="kproxy.controlplane.manager")
    parser.add_argument("--kubeconfig", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    log = logs.Log("manager")
    try:
        access = kubeconfig.load_kubeconfig(options.kubeconfig)
        cost = costs.of(costs.MANAGER, log)
    except errors.KproxyError as error:
        log.error("cannot start", error=str(error))
        return 2
    # Blocked before any thread starts, so that they all leave them to sigwait.
    ends = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    log.info("started")
    manager = Manager(rest.Rest(access, agent="kproxy-manager"), log, cost)
    manager.start()
    signal.sigwait(ends)
    manager.stop()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
