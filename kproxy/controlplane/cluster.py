"""What controllers and kubelet ask of the API server, as plain dictionaries.

Dictionaries, because a controller that makes a pod from a template must hand on fields which
:mod:`kproxy.api` does not know.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from kproxy import errors
from kproxy.api import kinds
from kproxy.client import rest

Object = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Cluster(Protocol):
    """Reads and writes of the API. Every method may raise ``KproxyError``.

    An object to be written names its namespace and name in ``metadata``; one with a
    ``resourceVersion`` is written only if that is current (else Conflict).
    """

    def list_objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """Return the objects of a kind (in one namespace, with these labels) as they are now."""
        ...

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return one object as it is now; None if there is none."""
        ...

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """Create an object. Raises Conflict if there is one of that name."""
        ...

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """Replace an object, except its status."""
        ...

    def update_status(self, kind: kinds.Kind, obj: Object) -> Object:
        """Replace an object's status."""
        ...

    def delete(
        self,
        kind: kinds.Kind,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        uid: str = "",
    ) -> None:
        """Delete an object; one that is gone already, or has another uid, is no error."""
        ...


class RestCluster:
    """A cluster reached through its API server. Safe to use from several threads."""

    def __init__(self, client: rest.Rest) -> None:
        self._client = client

    def list_objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """See :class:`Cluster`."""
        selector = ",".join(f"{name}={value}" for name, value in (labels or {}).items())
        query = {"labelSelector": selector} if selector else None
        items: Sequence[Object] = _decode(
            self._client.request("GET", kind.path(namespace), query=query)
        )["items"]
        return items

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """See :class:`Cluster`."""
        try:
            return _object(self._client.request("GET", kind.path(namespace, name)))
        except errors.ApiError as error:
            if error.code == 404:
                return None
            raise

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """See :class:`Cluster`."""
        path = kind.path(obj["metadata"].get("namespace", ""))
        return _object(self._client.request("POST", path, body=_encode(obj)))

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """See :class:`Cluster`."""
        return _object(self._client.request("PUT", _path(kind, obj), body=_encode(obj)))

    def update_status(self, kind: kinds.Kind, obj: Object) -> Object:
        """See :class:`Cluster`."""
        path = _path(kind, obj, "status")
        return _object(self._client.request("PUT", path, body=_encode(obj)))

    def delete(
        self,
        kind: kinds.Kind,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        uid: str = "",
    ) -> None:
        """See :class:`Cluster`."""
        options: Object = {"preconditions": {"uid": uid}} if uid else {}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self._client.request("DELETE", kind.path(namespace, name), body=_encode(options))
        except errors.ApiError as error:
            if error.code not in (404, 409):
                raise


def _path(kind: kinds.Kind, obj: Object, subresource: str = "") -> str:
    meta = obj["metadata"]
    return kind.path(meta.get("namespace", ""), meta["name"], subresource)


def _object(body: bytes) -> Object:
    obj: Object = _decode(body)
    return obj
