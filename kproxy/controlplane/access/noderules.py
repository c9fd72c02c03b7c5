"""What a node's credentials may touch: its own Node and Lease, and what its own pods need.

Kubernetes divides this between the Node authorizer and the admission plugin NodeRestriction; here
it is one check before the verb. Who has taken over a node can harm that node only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kproxy import errors

from ..defaults import MIRROR
from . import roles
from .identity import User
from .roles import Attributes

Object = dict[str, Any]
Find = Callable[[str, str, str], Object | None]
"""Return the object of a resource, namespace and name."""
Pods = Callable[[str], Iterator[Object]]
"""Yield the pods that are bound to a node."""

LEASES = "kube-node-lease"
RESERVED = "node-restriction.kubernetes.io/"


def check(
    user: User,
    asked: Attributes,
    fields: Mapping[str, str],
    body: Callable[[], Object],
    find: Find,
    pods: Pods,
) -> None:
    """Raise ApiError 403 if a node asks for what is another's.

    ``fields``: what the request's field selector demands; ``body``: gives the object sent.
    """
    node = user.node
    problem = ""
    match asked.resource:
        case "nodes" if asked.verb not in roles.READ:
            name = asked.name or _name(body())
            problem = "" if name == node else f"node {node!r} is not allowed to modify node"
            problem += f" {name!r}" if problem else ""
        case "leases":
            name = asked.name or _name(body())
            if asked.namespace != LEASES or name != node:
                problem = f"can only access the lease {node!r} in {LEASES}"
        case "pods":
            problem = _pods(node, asked, fields, body, find)
        case "secrets" | "configmaps" | "serviceaccounts":
            mine = [pod for pod in pods(node) if _refers(pod, asked)]
            if not mine:
                what = "object" if not asked.subresource else asked.subresource
                problem = f"no relationship found between node {node!r} and this {what}"
            elif asked.subresource == "token" and not _is_bound(body(), mine):
                problem = "node requested token not bound to a pod of its own by name and uid"
    if problem:
        raise forbidden(user, asked, problem)


def check_change(user: User, resource: str, old: Object | None, new: Object) -> None:
    """Raise ApiError 403 if a node frees itself of what others have put on it.

    That is its taints, and the labels that are reserved for keeping pods to certain nodes.
    """
    if resource != "nodes":
        return
    problem = ""
    if old is not None and _taints(old) != _taints(new):
        problem = "taints"
    elif _reserved(old or {}) != _reserved(new):
        problem = f"labels that begin with {RESERVED}"
    if problem:
        asked = Attributes(verb="update" if old else "create", resource=resource, name=_name(new))
        raise forbidden(user, asked, f"node {user.node!r} is not allowed to modify {problem}")


def _taints(node: Object) -> list[Object]:
    return (node.get("spec") or {}).get("taints") or []


def _reserved(node: Object) -> Object:
    labels = (node.get("metadata") or {}).get("labels") or {}
    return {name: value for name, value in labels.items() if name.startswith(RESERVED)}


def _pods(
    node: str,
    asked: Attributes,
    fields: Mapping[str, str],
    body: Callable[[], Object],
    find: Find,
) -> str:
    if asked.verb in ("list", "watch"):
        if fields.get("spec.nodeName") == node:
            return ""
        return f"can only list and watch pods with field selector spec.nodeName={node}"
    if asked.verb == "create" and not asked.subresource:
        return _mirror(node, body())
    found = find("pods", asked.namespace, asked.name)
    if found is None or (found.get("spec") or {}).get("nodeName") == node:
        return ""  # of what is not there, the verb says 404
    return f"node {node!r} can only access pods with spec.nodeName set to itself"


def _mirror(node: str, pod: Object) -> str:
    """Return why a node may not create a pod: mirrors refer to nothing, lest the node read it."""
    meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    if MIRROR not in (meta.get("annotations") or {}):
        return "pod does not have the mirror annotation of static pods"
    if spec.get("nodeName") != node:
        return f"can only create pods with spec.nodeName set to {node!r}"
    if any(spec.get(key) for key in ("serviceAccountName", "serviceAccount")):
        return "mirror pods may not use service accounts"
    for resource in ("secrets", "configmaps"):
        if any(_names(spec, resource)):
            return f"mirror pods may not refer to {resource}"
    return ""


def _is_bound(request: Object, pods: Sequence[Object]) -> bool:
    """Return whether a TokenRequest is for one of these pods."""
    ref = (request.get("spec") or {}).get("boundObjectRef") or {}
    metas = (pod["metadata"] for pod in pods)
    return ref.get("kind") == "Pod" and any(
        (ref.get("name"), ref.get("uid")) == (meta["name"], meta["uid"]) for meta in metas
    )


def _name(obj: Object) -> str:
    return str((obj.get("metadata") or {}).get("name", ""))


def _refers(pod: Object, asked: Attributes) -> bool:
    """Return whether a pod needs an object of its namespace."""
    if (pod["metadata"].get("namespace") or "") != asked.namespace:
        return False
    spec = pod.get("spec") or {}
    if asked.resource == "serviceaccounts":
        return bool(spec.get("serviceAccountName") == asked.name)  # mirrors have none
    return asked.name in set(_names(spec, asked.resource))


def _names(spec: Object, resource: str) -> Iterator[str]:
    """Yield the names of the Secrets or ConfigMaps that a pod's specification refers to."""
    kind = {"secrets": "secret", "configmaps": "configMap"}[resource]
    for volume in spec.get("volumes") or ():
        source = volume.get(kind) or {}
        yield str(source.get("secretName") or source.get("name") or "")
        for part in (volume.get("projected") or {}).get("sources") or ():
            yield str((part.get(kind) or {}).get("name") or "")
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for source in container.get("envFrom") or ():
            yield str((source.get(f"{kind}Ref") or {}).get("name") or "")
        for variable in container.get("env") or ():
            ref = (variable.get("valueFrom") or {}).get(f"{kind}KeyRef") or {}
            yield str(ref.get("name") or "")
    if resource == "secrets":
        for one in spec.get("imagePullSecrets") or ():
            yield str(one.get("name") or "")


def forbidden(user: User, asked: Attributes, problem: str = "") -> errors.ApiError:
    """Return the refusal, in Kubernetes' words."""
    if asked.path:
        message = f'forbidden: User "{user.name}" cannot {asked}'
    else:
        group = f".{asked.group}" if asked.group else ""
        name = f' "{asked.name}"' if asked.name else ""
        message = f'{asked.resource}{group}{name} is forbidden: User "{user.name}" cannot {asked}'
    return errors.ApiError(403, "Forbidden", f"{message}: {problem}" if problem else message)
