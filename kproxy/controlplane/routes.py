"""What the path of a request names. Pure."""

from dataclasses import dataclass

from kproxy import errors
from kproxy.api import kinds

from .presentation import resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A collection, an object (with a name), or a part of one (with a subresource)."""

    kind: kinds.Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Return the key of the object in the store."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewTarget:
    """A kind that is answered and not stored."""

    review: resources.Review
    namespace: str = ""


def group_of(kind: kinds.Kind) -> str:
    """Return the API group of a kind; the core group's name is empty."""
    return kind.api_version.rpartition("/")[0]


def review(path: str) -> ReviewTarget | None:
    """Return the review that a path names; None if it is no path of one."""
    match path.strip("/").split("/"):
        case ["apis", group, version, plural]:
            found, namespace = resources.review(f"{group}/{version}", plural), ""
        case ["apis", group, version, "namespaces", namespace, plural]:
            found = resources.review(f"{group}/{version}", plural)
        case _:
            return None
    if found is None or found.namespaced != bool(namespace):
        return None
    return ReviewTarget(review=found, namespace=namespace)


def target(path: str) -> Target:
    """Return what a path names. Raises ApiError 404 if it is no path of a kind we know."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        version, rest = parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        version, rest = f"{parts[1]}/{parts[2]}", parts[3:]
    else:
        raise not_found()
    namespace = ""
    # /namespaces/demo/pods is inside a namespace; /namespaces/demo(/status) is the Namespace.
    if rest[0] == "namespaces" and len(rest) > 2 and kinds.by_plural(version, rest[2]):
        namespace, rest = rest[1], rest[2:]
    kind = kinds.by_plural(version, rest[0])
    if kind is None or len(rest) > 3 or not all(rest):
        raise not_found()
    name, subresource = (*rest[1:], "", "")[:2]
    if namespace and not kind.namespaced:
        raise not_found()
    if name and kind.namespaced and not namespace:
        raise not_found()
    if subresource and subresource not in resources.subresources(kind):
        raise not_found()
    return Target(kind=kind, namespace=namespace, name=name, subresource=subresource)


def not_found() -> errors.ApiError:
    """Return the answer to a path that leads nowhere."""
    return errors.ApiError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> errors.ApiError:
    """Return the answer to a method that a path does not have."""
    message = "the server does not allow this method on the requested resource"
    return errors.ApiError(405, "MethodNotAllowed", message)
