"""What the kubelet's server asks of the kubelet: where a container runs, where its log is.

The functions are called by the kubelet's own thread (``Kubelet.ask``). They raise ApiError, worded
as Kubernetes words it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kproxy import errors

from .containerworker import ContainerWorker
from .podworker import PodWorker
from .runtime import ContainerSpec, LogFiles, PodRuntime, Sandbox

Object = dict[str, Any]
Workers = Mapping[str, PodWorker]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A container that runs."""

    sandbox: Sandbox
    spec: ContainerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """The log of one start of a container. ``attempt``: which start it is."""

    files: LogFiles
    uid: str
    attempt: int


def running(workers: Workers, namespace: str, pod: str, container: str) -> Running:
    """Return where a container runs."""
    worker, one = _container(workers, namespace, pod, container)
    sandbox, spec = worker.sandbox, one.spec
    if spec is None or sandbox is None:
        raise errors.ApiError(
            400, "BadRequest", f'container "{container}" in pod "{pod}" is not running'
        )
    return Running(sandbox=sandbox, spec=spec)


def logged(
    workers: Workers,
    runtime: PodRuntime,
    where: Sequence[str],
    *,
    previous: bool,
) -> Logged:
    """Return where the log of a container is; ``where``: namespace, pod, container."""
    namespace, pod, container = where
    worker, one = _container(workers, namespace, pod, container)
    attempt = one.starts - 1 - previous
    files = runtime.log(worker.uid, container, attempt) if attempt >= 0 else None
    if files is not None:
        return Logged(files=files, uid=worker.uid, attempt=attempt)
    state = one.state()
    if previous:
        what = f'previous terminated container "{container}" in pod "{pod}" not found'
    else:
        what = f'container "{container}" in pod "{pod}" is waiting to start: {state.waiting}'
    raise errors.ApiError(400, "BadRequest", what)


def is_over(workers: Workers, logged: Logged, container: str) -> bool:
    """Return whether nothing will be added to a log any more."""
    worker = workers.get(logged.uid)
    for one in worker.containers if worker else ():
        if one.container.name == container:
            return one.id is None or one.id.attempt != logged.attempt
    return True


def pod_list(workers: Workers) -> Object:
    """Return the pods of the node, as far as the kubelet knows them."""
    items = []
    for worker in workers.values():
        pod = msgspec.to_builtins(worker.pod)
        items.append({**pod, "status": worker.status()})
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def _container(
    workers: Workers, namespace: str, pod: str, container: str
) -> tuple[PodWorker, ContainerWorker]:
    for worker in workers.values():
        meta = worker.pod.metadata
        if (meta.namespace, meta.name) != (namespace, pod):
            continue
        for one in worker.containers:
            if one.container.name == container:
                return worker, one
        raise errors.ApiError(404, "NotFound", f'container "{container}" not found in pod "{pod}"')
    raise errors.ApiError(404, "NotFound", f'pod "{pod}" not found')
