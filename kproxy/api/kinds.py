"""Kinds of objects: how they are decoded and where the API serves them.

Here are those that a node proxy needs, which must start fast; importing
:mod:`kproxy.api.catalog` adds those of the whole cluster.

>>> by_name("v1", "Service").path("demo", "web")
'/api/v1/namespaces/demo/services/web'
"""

from typing import Any, NamedTuple

from kproxy.errors import InvalidObject

from .core import Namespace, Node, Service
from .discovery import EndpointSlice
from .meta import Object
from .networking import ServiceCIDR


class Kind(NamedTuple):
    """A kind of object, and where the API serves it."""

    api_version: str
    name: str
    plural: str
    namespaced: bool
    type: type[Object]
    stored_as: str = ""
    """The resource under which it is stored, if that is another kind's."""

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of the collection, or of one object or its subresource.

        For a namespaced kind an empty ``namespace`` means the collection of all namespaces.
        """
        root = "/apis/" if "/" in self.api_version else "/api/"
        parts = [root + self.api_version]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def label(self, namespace: str, name: str) -> str:
        """Return how messages name an object: ``Service demo/web``, ``Node n1``."""
        return f"{self.name} {namespace}/{name}" if self.namespaced else f"{self.name} {name}"


NAMESPACE = Kind("v1", "Namespace", "namespaces", False, Namespace)
NODE = Kind("v1", "Node", "nodes", False, Node)
SERVICE = Kind("v1", "Service", "services", True, Service)
ENDPOINT_SLICE = Kind(
    "discovery.k8s.io/v1", "EndpointSlice", "endpointslices", True, EndpointSlice
)
SERVICE_CIDR = Kind("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", False, ServiceCIDR)

_BY_NAME: dict[tuple[str, str], Kind] = {}
_BY_PLURAL: dict[tuple[str, str], Kind] = {}
_BY_TYPE: dict[type[Any], Kind] = {}


def add(*kinds: Kind) -> None:
    """Make kinds known, each once. Of two kinds of one type the first is the type's kind."""
    for kind in kinds:
        _BY_NAME[kind.api_version, kind.name] = kind
        _BY_PLURAL[kind.api_version, kind.plural] = kind
        _BY_TYPE.setdefault(kind.type, kind)


def stands_for(wanted: type[Any], kind: Kind) -> None:
    """Make a further type of a kind known to :func:`for_type`."""
    _BY_TYPE[wanted] = kind


def known() -> tuple[Kind, ...]:
    """Return all kinds that are known by now."""
    return tuple(_BY_NAME.values())


add(NAMESPACE, NODE, SERVICE, ENDPOINT_SLICE, SERVICE_CIDR)


def by_name(api_version: str, name: str) -> Kind:
    """Return the kind that ``apiVersion`` and ``kind`` of an object name.

    Raises :class:`InvalidObject`, which tells the known kinds, if there is none.
    """
    found = _BY_NAME.get((api_version, name))
    if found is not None:
        return found
    for kind in _BY_NAME.values():
        if kind.name == name:
            raise InvalidObject(
                name,
                "apiVersion",
                f"unknown version {api_version!r}",
                remedy=f"write apiVersion: {kind.api_version}",
            )
    known = ", ".join(f"{kind.name} ({kind.api_version})" for kind in _BY_NAME.values())
    raise InvalidObject(name, "kind", f"unknown kind {name!r}", remedy=f"known kinds: {known}")


def by_plural(api_version: str, plural: str) -> Kind | None:
    """Return the kind whose collection a URL names, or None."""
    return _BY_PLURAL.get((api_version, plural))


def for_type(wanted: type[Object]) -> Kind:
    """Return the kind that a type stands for. Raises KeyError for the type of a part."""
    return _BY_TYPE[wanted]


def of(obj: Object) -> Kind:
    """Return the kind of a typed object. Raises KeyError for a part of an object."""
    return _BY_TYPE[type(obj)]
