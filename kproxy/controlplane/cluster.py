"""What controllers and kubelet ask of the API server, as plain dictionaries.

Dictionaries, because a controller that makes a pod from a template must hand on fields which
:mod:`kproxy.api` does not know. Fulfilled by :class:`kproxy.client.objects.ObjectClient`, and by
:class:`kproxy.client.cache.CachedObjects`, which reads without asking.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kproxy.api import kinds

Object = dict[str, Any]


class Cluster(Protocol):
    """Reads and writes of the API. Every method may raise ``KproxyError``.

    An object to be written names its namespace and name in ``metadata``; one with a
    ``resourceVersion`` is written only if that is current (else Conflict). What is read is shared:
    make a changed copy of it, never change it.
    """

    def list_objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """Return the objects of a kind (in one namespace, with these labels).

        They may be older than what others wrote lately, never older than what this wrote.
        """
        ...

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return one object, as old as in :meth:`list_objects`; None if there is none."""
        ...

    def fresh(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return one object as it is now; None if there is none."""
        ...

    def fresh_list(self, kind: kinds.Kind, namespace: str = "") -> Sequence[Object]:
        """Return the objects of a kind (in one namespace) as they are now."""
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

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        """Change an object by a merge patch (RFC 7386): null removes a field."""
        ...

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Bind a pod to a node. Raises Conflict if it is bound, or another one by now."""
        ...

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
        """Delete an object; one that is gone already, or has another uid, is no error.

        ``propagation``: what becomes of the objects it owns: Background, Foreground or Orphan.
        """
        ...

    def finalize(self, namespace: Object) -> Object:
        """Replace the finalizers in a Namespace's ``spec``; without any, one in deletion goes."""
        ...
