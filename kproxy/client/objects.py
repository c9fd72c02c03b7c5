"""Reads and writes of single objects, as plain dictionaries.

Who writes an object back must hand on the fields that :mod:`kproxy.api` does not know, so nothing
is decoded into types here. Fits ``kproxy.controlplane.cluster.Cluster``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from kproxy.api import catalog, kinds
from kproxy.errors import ApiError

from .rest import JSON, MERGE_PATCH, Rest

Object = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Object).decode


class ObjectClient:
    """The objects behind a :class:`Rest`. Every method may raise ``ApiError``, ``Unreachable``.

    An object to be written names its namespace and name in ``metadata``; one with a
    ``resourceVersion`` is written only if that is current (else ``Conflict``). ``guard`` is called
    before every write, and may raise to forbid it: a leader whose term is over must not write.
    """

    def __init__(self, rest: Rest, *, guard: Callable[[], None] = lambda: None) -> None:
        self._rest = rest
        self._guard = guard

    def list_objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """Return the objects of a kind (in one namespace, with these labels) as they are now."""
        selector = ",".join(f"{name}={value}" for name, value in (labels or {}).items())
        query = {"labelSelector": selector} if selector else None
        items = _decode(self._rest.request("GET", kind.path(namespace), query=query)).get("items")
        return items or []

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return one object as it is now; None if there is none."""
        try:
            return _decode(self._rest.request("GET", kind.path(namespace, name)))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def fresh(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return one object as it is now: like :meth:`get`, which another client may cache."""
        return self.get(kind, namespace, name)

    def fresh_list(self, kind: kinds.Kind, namespace: str = "") -> Sequence[Object]:
        """Return the objects of a kind as they are now, where another client may cache."""
        return self.list_objects(kind, namespace)

    def finalize(self, namespace: Object) -> Object:
        """Replace the finalizers of a Namespace."""
        return self._write("PUT", _path(kinds.NAMESPACE, namespace, "finalize"), namespace)

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """Create an object. Raises ``Conflict`` if there is one of that name."""
        path = kind.path(obj["metadata"].get("namespace", ""))
        return self._write("POST", path, obj)

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """Replace an object, except its status."""
        return self._write("PUT", _path(kind, obj), obj)

    def update_status(self, kind: kinds.Kind, obj: Object) -> Object:
        """Replace an object's status."""
        return self._write("PUT", _path(kind, obj, "status"), obj)

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        """Change an object by a merge patch (RFC 7386): null removes a field."""
        path = kind.path(namespace, name, subresource)
        return self._write("PATCH", path, patch, MERGE_PATCH)

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Bind a pod to a node. Raises ``Conflict`` if it is bound, or another one by now."""
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        self._write("POST", catalog.POD.path(namespace, name, "binding"), body)

    def create_token(self, namespace: str, account: str, request: Object) -> Object:
        """Ask for a token of a service account (TokenRequest); return the answer."""
        path = catalog.SERVICE_ACCOUNT.path(namespace, account, "token")
        return self._write("POST", path, request)

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
        """Delete an object; one that is gone already, or has another uid, is no error."""
        options: Object = {"preconditions": {"uid": uid}} if uid else {}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation:
            options["propagationPolicy"] = propagation
        body = _encode(options) if options else b""
        self._guard()
        try:
            self._rest.request("DELETE", kind.path(namespace, name), body=body)
        except ApiError as error:
            if error.code != 404 and not (uid and error.code == 409):
                raise

    def _write(self, method: str, path: str, obj: Object, content_type: str = JSON) -> Object:
        body = _encode(obj)
        self._guard()
        return _decode(self._rest.request(method, path, body=body, content_type=content_type))


def _path(kind: kinds.Kind, obj: Object, subresource: str = "") -> str:
    meta = obj["metadata"]
    return kind.path(meta.get("namespace", ""), meta["name"], subresource)
