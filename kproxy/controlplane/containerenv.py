"""What a container's program is given: environment (downward API) and words of its command. Pure.

After the Kubernetes documentation: "Expose Pod Information to Containers Through Environment
Variables", and ``command`` and ``env`` in the Pod API reference.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api.pods import Container, EnvVar, Pod

LookUp = Callable[[str, str, str], Mapping[str, str] | None]
"""Returns the values of a ``configmap`` or ``secret`` of a namespace and name; None: no such one.

Raises KproxyError if nobody can say.
"""
_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_REMEDY = "use value, or valueFrom with fieldRef, configMapKeyRef or secretKeyRef"
_SOURCES = {"configMap": ("configmap", "ConfigMap"), "secret": ("secret", "Secret")}
"""Field → the words of Kubernetes' messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pod runs."""

    node_name: str
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()


def environment(
    pod: Pod, container: Container, place: Place, image: Mapping[str, str], look_up: LookUp
) -> dict[str, str]:
    """Return the variables of a container: built-in ones, the image's, the declared ones.

    Raises KproxyError for a reference that cannot be followed, and what ``look_up`` raises.
    """
    meta = pod.metadata
    own_name = pod.spec.hostname or meta.name
    env = {
        "HOSTNAME": place.node_name if pod.spec.host_network else own_name,
        "NODE_NAME": place.node_name,
        "POD_UID": meta.uid,
        **image,
    }
    for source in container.env_from or ():
        env |= _all_of(source, pod, look_up)
    for variable in container.env or ():
        value = _value(variable, env, pod, container, place, look_up)
        if value is not None:
            env[variable.name] = value
    return env


def without_sources(container: Container) -> Container:
    """Return a container without the variables for which ``look_up`` would be asked."""
    own = [
        one
        for one in container.env or ()
        if not any((one.value_from or {}).get(f"{field}KeyRef") for field in _SOURCES)
    ]
    return msgspec.structs.replace(container, env=own, env_from=None)


def _all_of(source: Mapping[str, Any], pod: Pod, look_up: LookUp) -> dict[str, str]:
    """Return the variables that one of ``envFrom`` stands for; what can be none is left out."""
    found: dict[str, str] = {}
    for field, (what, _) in _SOURCES.items():
        values = _values(source.get(f"{field}Ref"), what, pod, look_up) or {}
        found |= {f"{source.get('prefix') or ''}{name}": values[name] for name in values}
    return {name: value for name, value in found.items() if name and "=" not in name}


def _values(
    ref: Mapping[str, Any] | None, what: str, pod: Pod, look_up: LookUp
) -> Mapping[str, str] | None:
    """Return the values that a reference leads to; None if there need not be any."""
    if not ref:
        return None
    name = str(ref.get("name", ""))
    values = look_up(what, pod.metadata.namespace, name)
    if values is None and not ref.get("optional"):
        raise errors.KproxyError(f'{what} "{name}" not found')
    return values


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` where the name is known; ``$$`` is a dollar sign."""
    return _REFERENCE.sub(lambda m: "$" if m[1] is None else env.get(m[1], m[0]), text)


def command(words: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Return a command with its references replaced."""
    return tuple(expand(word, env) for word in words)


def _value(
    variable: EnvVar,
    env: Mapping[str, str],
    pod: Pod,
    container: Container,
    place: Place,
    look_up: LookUp,
) -> str | None:
    """Return the value of a variable; None: it is optional, and there is none."""
    if variable.value_from is None:
        return expand(variable.value, env)
    for field in _SOURCES:
        if ref := variable.value_from.get(f"{field}KeyRef"):
            return _value_of_key(field, ref, pod, look_up)
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


def _value_of_key(field: str, ref: Mapping[str, Any], pod: Pod, look_up: LookUp) -> str | None:
    what, kind = _SOURCES[field]
    key = str(ref.get("key", ""))
    value = (_values(ref, what, pod, look_up) or {}).get(key)
    if value is None and not ref.get("optional"):
        where = f"{pod.metadata.namespace}/{ref.get('name', '')}"
        raise errors.KproxyError(f"couldn't find key {key} in {kind} {where}")
    return value


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
