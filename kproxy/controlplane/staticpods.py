"""Static pods: manifests in a directory, run without asking anybody, shown in the API as mirrors.

A control plane may run so, before there is an API server. The uid comes from the file's place and
content, so a kubelet that is started again finds its pods, and a changed file is another pod.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import codec, validation, yamltext
from kproxy.api.pods import Pod

from . import defaults

Object = dict[str, Any]

HASH = "kubernetes.io/config.hash"
SOURCE = "kubernetes.io/config.source"
SUFFIXES = (".yaml", ".yml", ".json")
CHECK_SECONDS = 20.0
"""Kubernetes' fileCheckFrequency."""


@dataclass(frozen=True, slots=True)
class StaticPod:
    """A static pod, and the object that shows it in the API."""

    pod: Pod
    mirror: Object


def is_mirror(pod: Pod) -> bool:
    """Return whether a pod of the API only shows a static one."""
    return defaults.MIRROR in (pod.metadata.annotations or {})


def deleted(pod: Pod, today: str) -> Pod:
    """Return a static pod whose file is gone, as the API would show a deleted one."""
    grace = pod.spec.termination_grace_period_seconds
    metadata = msgspec.structs.replace(
        pod.metadata,
        deletion_timestamp=today,
        deletion_grace_period_seconds=defaults.GRACE_PERIOD if grace is None else grace,
    )
    return msgspec.structs.replace(pod, metadata=metadata)


class ManifestDirectory:
    """The pods of a directory; ``complain`` is told once of each file that is not in order."""

    def __init__(
        self, directory: Path, node_name: str, complain: Callable[[errors.KproxyError], None]
    ) -> None:
        self._directory = directory
        self._node_name = node_name
        self._complain = complain
        self._complained: dict[Path, str] = {}

    def read(self) -> list[StaticPod]:
        """Return the pods of all files that are in order; of two with one name the first.

        Raises KproxyError if the directory cannot be read: nothing should be ended for that.
        """
        try:
            paths = sorted(path for path in self._directory.iterdir() if _is_manifest(path))
        except OSError as error:
            raise errors.KproxyError(f"--pod-manifest-path: {error}") from None
        found: dict[tuple[str, str], StaticPod] = {}
        for path in paths:
            try:
                for one in self._file(path):
                    found.setdefault((one.pod.metadata.namespace, one.pod.metadata.name), one)
            except (errors.KproxyError, ExceptionGroup) as error:
                self._tell(path, error)
        return list(found.values())

    def _file(self, path: Path) -> Iterator[StaticPod]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise errors.KproxyError(str(error)) from None
        for number, document in enumerate(_documents(data, path.name)):
            if document.get("kind") != "Pod":
                raise errors.KproxyError("a static pod's manifest must be of kind Pod")
            words = "\n".join((self._node_name, str(path), str(number)))
            digest = hashlib.blake2b(words.encode() + data, digest_size=16).hexdigest()
            yield self._pod(document, digest)

    def _pod(self, document: Object, digest: str) -> StaticPod:
        codec.from_dict(document, Pod)  # its shape, before anything is read from it
        meta = {**document["metadata"]}
        meta.pop("resourceVersion", None)  # of a manifest that was read from an API server
        name = f"{meta.get('name', '')}-{self._node_name}"
        marks = {**(meta.get("annotations") or {}), HASH: digest, SOURCE: "file"}
        meta = {**meta, "name": name, "namespace": meta.get("namespace") or "default"}
        spec = {**(document.get("spec") or {}), "nodeName": self._node_name}
        spec.setdefault("tolerations", [{"operator": "Exists", "effect": "NoExecute"}])
        shown = {**meta, "annotations": {**marks, defaults.MIRROR: digest}}
        # Defaults know mirrors: they get no service account, which a node may not give them.
        mirror = defaults.apply(
            "Pod", {"apiVersion": "v1", "kind": "Pod", "metadata": shown, "spec": spec}
        )
        own = {**meta, "annotations": marks, "uid": digest}
        pod = codec.from_dict({**mirror, "metadata": own}, Pod)
        problems = validation.validate(pod)
        if problems:
            raise ExceptionGroup("invalid pod", problems)
        return StaticPod(pod, mirror)

    def _tell(self, path: Path, error: errors.KproxyError | ExceptionGroup[Exception]) -> None:
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        text = f"static pod {path.name}: {first}"
        if self._complained.get(path) != text:
            self._complained[path] = text
            self._complain(errors.KproxyError(text))


def _is_manifest(path: Path) -> bool:
    return path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _documents(data: bytes, where: str) -> list[Object]:
    documents, problems = yamltext.parse(data.decode(errors="replace"), where)
    if problems:
        raise problems[0]
    values = [one.value for one in documents]
    if not all(isinstance(one, dict) for one in values):
        raise errors.KproxyError("a manifest must be an object")
    return values
