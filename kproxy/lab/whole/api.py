"""The cluster's API, as the administrator sees it from the host ``admin``.

Every call is made in that host's network, whatever thread makes it, through the API servers'
virtual IP unless one server is named.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.api.manifests import Manifest
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.lab.site import ADMIN, API_PORT
from kproxy.lab.whole.places import Places
from netns.lab import AttachedLab

Object = dict[str, Any]

APPLY_PATCH = "application/apply-patch+yaml"
MANAGER = "kproxy-lab"
TIMEOUT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of one object: ``error`` is empty if it was taken."""

    label: str
    error: str = ""
    changed: bool = True


class Api:
    """See the module. Every method may raise ApiError, Unreachable. To be closed."""

    def __init__(
        self, lab: AttachedLab, places: Places, *, server: str = "", timeout: float = TIMEOUT
    ) -> None:
        """``server``: the host of one API server; empty: the virtual IP, so any of them."""
        self._lab = lab
        url = places.site.api_url
        if server:
            url = f"{url.partition(':')[0]}://{places.site.lan_address(server)}:{API_PORT}"
        access = load_kubeconfig(places.kubeconfig(), server=url)
        self._rest = Rest(access, agent=MANAGER, timeout=timeout)
        self._objects = ObjectClient(self._rest)

    def close(self) -> None:
        """End all requests."""
        self._rest.close()

    def ready(self) -> bool:
        """Return whether the API answers and says it is ready."""
        try:
            self.request("GET", "/readyz")
        except (errors.KproxyError, OSError):
            return False
        return True

    def request(self, method: str, path: str, **options: Any) -> bytes:
        """Make a request; see :meth:`Rest.request`."""
        with self._lab.host(ADMIN).entered():
            return self._rest.request(method, path, **options)

    def objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Return the objects of a kind as they are now."""
        with self._lab.host(ADMIN).entered():
            return list(self._objects.list_objects(kind, namespace, labels))

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return one object as it is now; None if there is none."""
        with self._lab.host(ADMIN).entered():
            return self._objects.get(kind, namespace, name)

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """Create an object. Raises Conflict if there is one of that name."""
        with self._lab.host(ADMIN).entered():
            return self._objects.create(kind, obj)

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """Replace an object, except its status."""
        with self._lab.host(ADMIN).entered():
            return self._objects.update(kind, obj)

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        """Change an object by a merge patch."""
        with self._lab.host(ADMIN).entered():
            return self._objects.patch(kind, namespace, name, patch, subresource)

    def delete(
        self, kind: kinds.Kind, namespace: str, name: str, *, grace: int | None = None
    ) -> None:
        """Delete an object; one that is gone already is no error."""
        with self._lab.host(ADMIN).entered():
            self._objects.delete(kind, namespace, name, grace=grace)

    def apply(self, obj: Object) -> Applied:
        """Apply one object on the server's side, as ``kubectl apply --server-side`` does.

        What the server refuses is told in the answer; Unreachable is raised.
        """
        kind = kinds.by_name(obj["apiVersion"], obj["kind"])
        meta = obj["metadata"]
        namespace = meta.get("namespace") or ("default" if kind.namespaced else "")
        label = kind.label(namespace, meta["name"])
        try:
            before = self.get(kind, namespace, meta["name"])
            found = self.request(
                "PATCH",
                kind.path(namespace, meta["name"]),
                query={"fieldManager": MANAGER, "force": "true"},
                body=msgspec.json.encode(obj),
                content_type=APPLY_PATCH,
            )
        except errors.ApiError as error:
            return Applied(label=label, error=error.message, changed=False)
        after = msgspec.json.decode(found)["metadata"].get("resourceVersion")
        same = before is not None and before["metadata"].get("resourceVersion") == after
        return Applied(label=label, changed=not same)

    def apply_all(self, manifests: Iterable[Manifest | Object]) -> list[Applied]:
        """Apply objects, namespaces first; each by itself, so that one mistake stops no other."""
        objects = [one.data if isinstance(one, Manifest) else one for one in manifests]
        objects.sort(key=lambda obj: obj["kind"] != kinds.NAMESPACE.name)
        return [self.apply(obj) for obj in objects]

    def pods(self, namespace: str = "") -> list[Object]:
        """Return all pods."""
        return self.objects(catalog.POD, namespace)
