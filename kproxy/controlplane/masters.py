"""The API servers of a cluster as a Service: ``default/kubernetes``, and its EndpointSlice.

Each server renews a Lease that says where it is; whose Lease has run out is taken off the slice,
by any of the others. So clients behind the Service's address find the servers that are there.
"""

import contextlib
import ipaddress
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from kproxy import errors, logs, rfc3339
from kproxy.api import addresses, catalog, kinds
from kproxy.rfc3339 import timestamp

from . import routes
from .presentation import cells
from .rest import Api

Object = dict[str, Any]

NAME = "kubernetes"
LEASE_SECONDS = 15
RENEW_SECONDS = 10.0
RETRY_SECONDS = 1.0
LABEL = {"apiserver.kubernetes.io/identity": "kube-apiserver"}

_encode = msgspec.json.Encoder().encode


def advertised(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of ``--advertise-address``. Raises UsageError if nobody reaches it."""
    remedy = "give one at which pods reach this server"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise errors.UsageError(
            f"--advertise-address {text!r} is not an IP address", remedy=remedy
        ) from None
    if problem := addresses.special_use(str(address)):
        raise errors.UsageError(
            f"--advertise-address {address} is a {problem} address", remedy=remedy
        )
    return address


class Masters:
    """Keeps one API server known as long as it runs; see :meth:`start`."""

    def __init__(
        self,
        api: Api,
        address: str,
        port: int,
        first_address: str,
        log: logs.Log,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``address``: where clients reach this server; ``first_address``: the Service's.

        Raises UsageError: see :func:`advertised`.
        """
        reached = advertised(address)
        self._api = api
        self._address = str(reached)
        self._port = port
        self._service_address = first_address
        self._log = log
        self._now = now
        self._family = f"IPv{reached.version}"
        self._slice = NAME if reached.version == 4 else f"{NAME}-v6"
        self._lease = f"apiserver-{self._address.replace(':', '-').replace('.', '-')}-{port}"

    def start(self) -> None:
        """Renew and repair every RENEW_SECONDS until the store is closed, in a thread."""
        threading.Thread(target=self._run, name="masters", daemon=True).start()

    def _run(self) -> None:
        wait = 0.0
        while not self._api.store.wait_closed(wait):
            try:
                self.reconcile()
                wait = RENEW_SECONDS
            except (errors.KproxyError, ExceptionGroup) as error:
                if not self._api.store.closed:
                    self._log.warning("cannot publish this API server", error=str(error))
                wait = RETRY_SECONDS

    def reconcile(self) -> None:
        """Renew this server's Lease, and bring Service and slice up to date."""
        self._put_lease()
        self._put_service()
        self._put_slice()

    def leave(self) -> None:
        """Take this server off the slice, at its end. What does not answer is left as it is."""
        target = self._target(catalog.LEASE, "kube-system", self._lease)
        with contextlib.suppress(errors.KproxyError, ExceptionGroup):
            self._api.delete(target, {}, b"")
            self._put_slice()

    def _put_lease(self) -> None:
        spec = {
            "holderIdentity": f"{self._address}_{self._port}",
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": timestamp(self._now())[:-1] + ".000000Z",
        }
        meta = {"name": self._lease, "labels": dict(LABEL)}
        self._put(catalog.LEASE, "kube-system", {"metadata": meta, "spec": spec})

    def _put_service(self) -> None:
        target = self._target(kinds.SERVICE, "default", NAME)
        if self._api.store.exists("services", target.key):
            return
        spec = {
            "type": "ClusterIP",
            "clusterIP": self._service_address,
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "targetPort": self._port}],
        }
        labels = {"component": "apiserver", "provider": "kubernetes"}
        meta = {"name": NAME, "labels": labels}
        self._put(kinds.SERVICE, "default", {"metadata": meta, "spec": spec})

    def _put_slice(self) -> None:
        endpoints = [
            {"addresses": [address], "conditions": {"ready": True}} for address in self._alive()
        ]
        labels = {"kubernetes.io/service-name": NAME}
        self._put(
            kinds.ENDPOINT_SLICE,
            "default",
            {
                "metadata": {"name": self._slice, "labels": labels},
                "addressType": self._family,
                "endpoints": endpoints,
                "ports": [{"name": "https", "port": self._port, "protocol": "TCP"}],
            },
        )

    def _alive(self) -> list[str]:
        """Return the addresses of our family whose servers have renewed their Leases."""
        found = set()
        for item in self._api.store.list("leases", "kube-system")[0]:
            labels = item.obj["metadata"].get("labels") or {}
            if LABEL.items() - labels.items():
                continue
            address = str(cells.at(item.obj, "spec", "holderIdentity")).rpartition("_")[0]
            renewed = rfc3339.seconds_of(cells.at(item.obj, "spec", "renewTime")) or 0.0
            seconds = cells.at(item.obj, "spec", "leaseDurationSeconds") or LEASE_SECONDS
            is_ours = (":" in address) == (self._family == "IPv6")
            if is_ours and self._now() < renewed + seconds:
                found.add(ipaddress.ip_address(address))
        return [str(address) for address in sorted(found, key=int)]

    def _put(self, kind: kinds.Kind, namespace: str, obj: Object) -> None:
        """Create an object, or make it say what it should."""
        name = obj["metadata"]["name"]
        target = self._target(kind, namespace, name)
        if self._api.store.exists(kind.plural, target.key):
            self._api.merge_patch(target, _encode(obj))
            return
        with contextlib.suppress(errors.Conflict):  # another server was faster
            self._api.create(routes.Target(kind=kind, namespace=namespace), _encode(obj))

    @staticmethod
    def _target(kind: kinds.Kind, namespace: str, name: str) -> routes.Target:
        return routes.Target(kind=kind, namespace=namespace, name=name)
