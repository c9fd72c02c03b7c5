"""Writes the addresses of Services into their status, as a cloud's controller does.

One thread. What cannot be written now is tried again, with a back-off: forwarding does not wait
for it.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from kproxy import errors, logs
from kproxy.api import core, kinds
from kproxy.client.objects import ObjectClient
from kproxy.controlplane.eventrecorder import Events
from kproxy.controlplane.workqueue import WorkQueue

from .addresses import Address, Key


class StatusWriter:
    """Keeps ``status.loadBalancer`` of all Services as wanted."""

    def __init__(self, cluster: ObjectClient, events: Events, log: logs.Log) -> None:
        self._cluster = cluster
        self._events = events
        self._log = log
        self._lock = threading.Lock()
        self._wanted: dict[Key, tuple[core.Service, tuple[Address, ...]]] = {}
        self._queue = WorkQueue()
        self._thread = threading.Thread(target=self._run, name="statuses", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End it; the client must have been closed."""
        self._queue.stop()
        self._thread.join()

    def want(self, services: Mapping[Key, tuple[core.Service, Sequence[Address]]]) -> None:
        """Take the newest Services, and which addresses each is to have: none, if not ours."""
        with self._lock:
            self._wanted = {key: (one, tuple(given)) for key, (one, given) in services.items()}
            behind = [key for key, (one, given) in self._wanted.items() if _differs(one, given)]
        for key in behind:
            self._queue.add("/".join(key))

    def _run(self) -> None:
        while (name := self._queue.get()) is not None:
            namespace, _, own = name.partition("/")
            try:
                self._write((namespace, own))
            except errors.KproxyError as error:
                wait = self._queue.retry(name)
                self._log.warning(
                    "status not written", service=name, error=str(error), again_in=wait
                )
            else:
                self._queue.succeeded(name)
            self._queue.done()

    def _write(self, key: Key) -> None:
        with self._lock:
            found = self._wanted.get(key)
        if found is None or not _differs(*found):
            return
        service, given = found
        ingress = [{"ip": str(address), "ipMode": "VIP"} for address in given]
        balancer: dict[str, Any] = {"ingress": ingress or None}
        try:
            self._cluster.patch(
                kinds.SERVICE, *key, {"status": {"loadBalancer": balancer}}, "status"
            )
        except errors.ApiError as error:
            if error.code == 404:
                return  # it has gone just now
            raise
        listed = ", ".join(map(str, given))
        self._log.info("address", service="/".join(key), addresses=listed)
        if given:
            told = f"Ensured load balancer at {listed}"
            self._events.event(kinds.SERVICE, about(service), "EnsuredLoadBalancer", told)


def about(service: core.Service) -> dict[str, Any]:
    """Return what an Event needs of the object that it is about."""
    meta = service.metadata
    return {
        "metadata": {
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        }
    }


def _differs(service: core.Service, given: Sequence[Address]) -> bool:
    balancer = service.status.load_balancer if service.status else None
    told = [(one.ip, one.ip_mode) for one in (balancer.ingress if balancer else None) or ()]
    return told != [(str(address), "VIP") for address in given]
