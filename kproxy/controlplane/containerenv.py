"""What a container's program is given: environment (downward API) and words of its command. Pure.

After the Kubernetes documentation: "Expose Pod Information to Containers Through Environment
Variables", and ``command`` and ``env`` in the Pod API reference.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kproxy import errors
from kproxy.api.pods import Container, EnvVar, Pod

_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_REMEDY = "use value, or valueFrom.fieldRef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pod runs."""

    node_name: str
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()


def environment(
    pod: Pod, container: Container, place: Place, image: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of a container: built-in ones, the image's, the declared ones.

    Raises KproxyError for a reference that cannot be followed.
    """
    meta = pod.metadata
    own_name = pod.spec.hostname or meta.name
    env = {
        "HOSTNAME": place.node_name if pod.spec.host_network else own_name,
        "NODE_NAME": place.node_name,
        "POD_UID": meta.uid,
        **image,
    }
    if container.env_from:
        raise errors.KproxyError(
            f"container {container.name}: envFrom is not supported", remedy=_REMEDY
        )
    for variable in container.env or ():
        env[variable.name] = _value(variable, env, pod, container, place)
    return env


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` where the name is known; ``$$`` is a dollar sign."""
    return _REFERENCE.sub(lambda m: "$" if m[1] is None else env.get(m[1], m[0]), text)


def command(words: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Return a command with its references replaced."""
    return tuple(expand(word, env) for word in words)


def _value(
    variable: EnvVar, env: Mapping[str, str], pod: Pod, container: Container, place: Place
) -> str:
    if variable.value_from is None:
        return expand(variable.value, env)
    where = f"container {container.name}: env {variable.name}"
    reference = variable.value_from.get("fieldRef")
    if not isinstance(reference, dict):
        kinds = ", ".join(variable.value_from) or "nothing"
        raise errors.KproxyError(f"{where}: valueFrom {kinds} is not supported", remedy=_REMEDY)
    path = str(reference.get("fieldPath", ""))
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        marks = {"labels": pod.metadata.labels, "annotations": pod.metadata.annotations}
        return (marks[subscript[1]] or {}).get(subscript[2], "")
    if path not in _FIELDS:
        raise errors.KproxyError(
            f"{where}: unknown field {path!r}", remedy=f"use one of {', '.join(_FIELDS)}"
        )
    return _FIELDS[path](pod, place)


def _first(addresses: Sequence[str]) -> str:
    return addresses[0] if addresses else ""


_FIELDS: Mapping[str, Callable[[Pod, Place], str]] = {
    "metadata.name": lambda pod, place: pod.metadata.name,
    "metadata.namespace": lambda pod, place: pod.metadata.namespace,
    "metadata.uid": lambda pod, place: pod.metadata.uid,
    "spec.nodeName": lambda pod, place: place.node_name,
    "spec.serviceAccountName": lambda pod, place: pod.spec.service_account_name or "default",
    "status.podIP": lambda pod, place: _first(place.pod_ips),
    "status.podIPs": lambda pod, place: ",".join(place.pod_ips),
    "status.hostIP": lambda pod, place: _first(place.host_ips),
    "status.hostIPs": lambda pod, place: ",".join(place.host_ips),
}
