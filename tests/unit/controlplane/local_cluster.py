"""A cluster for tests whose API is in the same process: no sockets, no waiting."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.controlplane import addresses, routes
from kproxy.controlplane.allocations import Allocations
from kproxy.controlplane.rest import Api
from kproxy.controlplane.storage.memory import MemoryStorage
from kproxy.controlplane.store import Store

Object = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def new_api(**options: Any) -> Api:
    """Return the API of an empty cluster; ``options`` go to its store."""
    store = Store(MemoryStorage(), **options)
    cidrs = addresses.parse_cidrs("10.96.0.0/16")
    return Api(store, Allocations(store, cidrs, draw=random.Random(1)))


class LocalCluster:
    """A cluster whose API is in this process."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def list_objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """See :class:`Cluster`."""
        selector = ",".join(f"{name}={value}" for name, value in (labels or {}).items())
        target = routes.Target(kind=kind, namespace=namespace)
        body = self._api.list(target, {"labelSelector": selector}).body
        items: Sequence[Object] = _decode(body)["items"]
        return items

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """See :class:`Cluster`."""
        try:
            return _object(self._api.get(_target(kind, namespace, name)).body)
        except errors.ApiError as error:
            if error.code == 404:
                return None
            raise

    def fresh(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """See :class:`Cluster`."""
        return self.get(kind, namespace, name)

    def fresh_list(self, kind: kinds.Kind, namespace: str = "") -> Sequence[Object]:
        """See :class:`Cluster`."""
        return self.list_objects(kind, namespace)

    def finalize(self, namespace: Object) -> Object:
        """See :class:`Cluster`."""
        target = _target(kinds.NAMESPACE, "", namespace["metadata"]["name"], "finalize")
        return _object(self._api.replace(target, _encode(namespace)).body)

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """See :class:`Cluster`."""
        body = {"metadata": {"uid": uid}, "target": {"kind": "Node", "name": node}}
        self._api.create(_target(catalog.POD, namespace, name, "binding"), _encode(body))

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        """See :class:`Cluster`."""
        target = _target(kind, namespace, name, subresource)
        return _object(self._api.merge_patch(target, _encode(patch)).body)

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """See :class:`Cluster`."""
        target = routes.Target(kind=kind, namespace=obj["metadata"].get("namespace", ""))
        return _object(self._api.create(target, _encode(obj)).body)

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """See :class:`Cluster`."""
        return _object(self._api.replace(_target_of(kind, obj), _encode(obj)).body)

    def update_status(self, kind: kinds.Kind, obj: Object) -> Object:
        """See :class:`Cluster`."""
        target = _target_of(kind, obj, subresource="status")
        return _object(self._api.replace(target, _encode(obj)).body)

    def delete(
        self,
        kind: kinds.Kind,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        uid: str = "",
        propagation: str = "",
    ) -> None:
        """See :class:`Cluster`."""
        options: Object = {"preconditions": {"uid": uid}} if uid else {}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation:
            options["propagationPolicy"] = propagation
        try:
            self._api.delete(_target(kind, namespace, name), {}, _encode(options))
        except errors.ApiError as error:
            if error.code not in (404, 409):
                raise


def _target(kind: kinds.Kind, namespace: str, name: str, subresource: str = "") -> routes.Target:
    return routes.Target(kind=kind, namespace=namespace, name=name, subresource=subresource)


def _target_of(kind: kinds.Kind, obj: Object, subresource: str = "") -> routes.Target:
    meta = obj["metadata"]
    return _target(kind, meta.get("namespace", ""), meta["name"], subresource)


def _object(body: bytes) -> Object:
    obj: Object = _decode(body)
    return obj
