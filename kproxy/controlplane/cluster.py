"""What controllers and kubelet ask of the API server, as plain dictionaries.

Dictionaries, because a controller that makes a pod from a template must hand on fields which
:mod:`kproxy.api` does not know. :class:`kproxy.client.objects.ObjectClient` fulfils it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kproxy.api import kinds

Object = dict[str, Any]


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
