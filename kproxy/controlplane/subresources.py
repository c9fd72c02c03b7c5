"""Parts of objects with paths of their own: scale, binding, eviction, token, finalize."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import catalog, shapes
from kproxy.rfc3339 import timestamp

from . import bodies, deletion, namespaces, routes, status
from .access import tokens
from .controllers import conditions
from .patches import merge, strategic
from .presentation import cells
from .requests import DEFAULT, Answer, Options
from .store import Store
from .versions import Object
from .writes import Writes

_encode = msgspec.json.Encoder().encode
_PRECONDITIONS = ("uid", "resourceVersion")


class Subresources:
    """Answers for parts of objects. May be used from several threads."""

    def __init__(
        self,
        store: Store,
        writes: Writes,
        signer: tokens.Signer | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._writes = writes
        self._signer = signer
        self._now = now

    def get_scale(self, target: routes.Target) -> Answer:
        """Return how many replicas are wanted and there are (autoscaling/v1)."""
        return Answer(200, _encode(scale_of(self._store.get(target.kind.plural, target.key).obj)))

    def put_scale(self, target: routes.Target, body: bytes, options: Options) -> Answer:
        """Set how many replicas are wanted, by a whole Scale."""
        new = bodies.parse_object(body, options.content_type)
        return self._scale(target, lambda scale: new, options)

    def patch_scale(self, target: routes.Target, body: bytes, options: Options) -> Answer:
        """Set how many replicas are wanted, by a patch of a Scale."""
        patch = bodies.parse(body, options.content_type)

        def change(scale: Object) -> Object:
            match options.content_type:
                case "application/json-patch+json":
                    return dict(merge.json_patch(scale, patch))
                case "application/strategic-merge-patch+json":
                    return strategic.merge(scale, patch, shapes.ANY)
            return dict(merge.merge(scale, patch))

        return self._scale(target, change, options)

    def _scale(
        self, target: routes.Target, make: Callable[[Object], Object], options: Options
    ) -> Answer:
        def change(old: Object) -> Object:
            new = make(scale_of(old))
            replicas = cells.at(new, "spec", "replicas") or 0
            if type(replicas) is not int or replicas < 0:
                label = f"Scale {target.namespace}/{target.name}"
                problem = f"{replicas!r} must be greater than or equal to 0"
                raise errors.InvalidObject(label, "spec.replicas", problem)
            version = cells.at(new, "metadata", "resourceVersion") or ""
            meta = {**old["metadata"], "resourceVersion": version}
            return {**old, "metadata": meta, "spec": {**old["spec"], "replicas": replicas}}

        whole = routes.Target(kind=target.kind, namespace=target.namespace, name=target.name)
        item = self._writes.update(whole, change, options)
        return Answer(200, _encode(scale_of(item.obj)))

    def bind(self, target: routes.Target, body: bytes, options: Options) -> Answer:
        """Bind a pod to a node, once and for all (a scheduler does that)."""
        wanted = bodies.parse_object(body, options.content_type)
        node = bodies.part(wanted, "target").get("name")
        if not isinstance(node, str) or not node:
            label = f"Binding {target.namespace}/{target.name}"
            raise errors.InvalidObject(label, "target.name", "is missing", remedy="name a node")
        asked = bodies.part(wanted, "metadata")
        annotations = bodies.part(asked, "annotations")

        def change(pod: Object) -> Object:
            _check_bindable(pod, asked)
            meta = dict(pod["metadata"])
            if annotations:
                meta["annotations"] = {**(meta.get("annotations") or {}), **annotations}
            scheduled = {
                "type": "PodScheduled",
                "status": "True",
                "lastTransitionTime": timestamp(self._now()),
            }
            before = pod.get("status") or {}
            told = conditions.put(before.get("conditions") or (), scheduled)
            return {
                **pod,
                "metadata": meta,
                "spec": {**pod["spec"], "nodeName": node},
                "status": {**before, "conditions": told},
            }

        self._writes.put("pods", target, change, options)
        return Answer(201, _encode(status.success()))

    def evict(self, target: routes.Target, body: bytes, options: Options) -> Answer:
        """Delete a pod on behalf of who drains a node."""
        wanted = bodies.parse_object(body, options.content_type)
        raw = _encode(bodies.part(wanted, "deleteOptions"))
        pod = routes.Target(kind=catalog.POD, namespace=target.namespace, name=target.name)
        plain = Options(dry_run=options.dry_run)
        deletion.delete(self._store, self._writes, pod, {}, raw, plain)
        return Answer(201, _encode(status.success()))

    def finalize(self, target: routes.Target, body: bytes, options: Options) -> Answer:
        """Set the finalizers of a namespace; without any, one that is to be deleted goes."""
        new = bodies.parse_object(body, options.content_type)
        finalizers = bodies.texts(bodies.part(new, "spec"), "finalizers")
        asked = bodies.part(new, "metadata")
        precondition = {name: asked[name] for name in _PRECONDITIONS if asked.get(name)}

        def change(old: Object) -> Object:
            meta = {**old["metadata"], **precondition}
            return namespaces.finalized({**old, "metadata": meta}, finalizers)

        return Answer(200, self._writes.put("namespaces", target, change, options).raw)

    def token(self, target: routes.Target, body: bytes, options: Options = DEFAULT) -> Answer:
        """Give out a token of a service account (TokenRequest)."""
        if self._signer is None:
            message = "this API server signs no tokens: start it with --token-key-file"
            raise errors.ApiError(501, "NotImplemented", message)
        account = self._store.get("serviceaccounts", target.key).obj["metadata"]
        wanted = bodies.parse_object(body, options.content_type)
        spec = bodies.part(wanted, "spec")
        seconds = _seconds(spec.get("expirationSeconds"), target)
        audiences = bodies.texts(spec, "audiences") or (tokens.AUDIENCE,)
        token, expires = self._signer.sign(
            target.namespace,
            target.name,
            account["uid"],
            seconds,
            audiences=audiences,
            pod=self._bound_pod(bodies.part(spec, "boundObjectRef"), target.namespace),
        )
        answer = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": target.name, "namespace": target.namespace},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": timestamp(expires)},
        }
        return Answer(201, _encode(answer))

    def _bound_pod(self, ref: Object, namespace: str) -> dict[str, str] | None:
        if not ref:
            return None
        if ref.get("kind") != "Pod":
            message = f"boundObjectRef: {ref.get('kind')!r}: tokens are bound to Pods only"
            raise errors.ApiError(400, "BadRequest", message)
        pod = self._store.get("pods", (namespace, str(ref.get("name")))).obj["metadata"]
        if ref.get("uid") not in (None, "", pod["uid"]):
            message = f'the UID in the bound object reference does not match "{pod["uid"]}"'
            raise errors.Conflict(409, "Conflict", message)
        return {"name": pod["name"], "uid": pod["uid"]}


def scale_of(obj: Object) -> Object:
    """Return the Scale of a workload."""
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = cells.selector(cells.at(obj, "spec", "selector"))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {"replicas": cells.at(obj, "spec", "replicas") or 0},
        "status": {
            "replicas": cells.at(obj, "status", "replicas") or 0,
            "selector": "" if selector == "<none>" else selector,
        },
    }


def _check_bindable(pod: Object, asked: Object) -> None:
    meta = pod["metadata"]
    problem = ""
    if asked.get("uid") not in (None, "", meta["uid"]):
        problem = "the UID in the precondition does not match the UID in record"
    elif meta.get("deletionTimestamp"):
        problem = f"pod {meta['name']} is being deleted, cannot be assigned to a host"
    elif pod["spec"].get("nodeName"):
        node = pod["spec"]["nodeName"]
        problem = f'pod {meta["name"]} is already assigned to node "{node}"'
    if problem:
        message = f'Operation cannot be fulfilled on pods/binding "{meta["name"]}": {problem}'
        raise errors.Conflict(409, "Conflict", message)


def _seconds(asked: Any, target: routes.Target) -> int:
    if asked is None:
        return tokens.USUAL
    if type(asked) is not int or asked < tokens.SHORTEST:
        label = f"TokenRequest {target.namespace}/{target.name}"
        problem = "may not specify a duration less than 10 minutes"
        raise errors.InvalidObject(label, "spec.expirationSeconds", problem)
    return min(asked, tokens.LONGEST)
