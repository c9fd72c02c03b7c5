"""Files of manifests, as users write them for ``kubectl apply``: read, checked, made unambiguous.

An object with a mistake is left out and reported; the others are kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kproxy.errors import InvalidObject, UsageError

from . import codec, kinds, service_rules, validation, yamltext
from .core import Service
from .meta import Object

DEFAULT_NAMESPACE = "default"


class Manifest(NamedTuple):
    """One object of a file, as written (``data``) and as understood (``object``)."""

    kind: kinds.Kind
    data: dict[str, Any]
    object: Object
    where: str
    """``shop.yaml, document 2``."""


def load_manifests(*sources: str | Path) -> tuple[list[dict[str, Any]], list[InvalidObject]]:
    """Read the objects of files (Paths) or of texts; see :func:`read_manifests`."""
    good, problems = read_manifests(*sources)
    return [manifest.data for manifest in good], problems


def read_manifests(*sources: str | Path) -> tuple[list[Manifest], list[InvalidObject]]:
    """Read, decode and check the objects of files (Paths) or of texts, all together.

    Namespaced objects without a namespace get ``default``. Of objects that are there twice, or
    want the same address and port, the first is kept. Raises :class:`UsageError` if the file
    cannot be read.
    """
    problems: list[InvalidObject] = []
    found: list[Manifest] = []
    for source in sources:
        where = source.name if isinstance(source, Path) else "manifest"
        text = _read(source) if isinstance(source, Path) else source
        documents, unreadable = yamltext.parse(text, where)
        problems += unreadable
        for document in documents:
            for item, place in _flatten(document.value, document.where):
                manifest = _understand(item, place, problems)
                if manifest is not None:
                    found.append(manifest)
    return _without_clashes(found, problems), problems


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}") from None


def _flatten(value: Any, where: str) -> list[tuple[Any, str]]:
    """Take lists of objects apart: kind List, and YAML sequences."""
    if isinstance(value, list):
        items = value
    elif isinstance(value, dict) and str(value.get("kind", "")).endswith("List"):
        items = value.get("items") or []
    else:
        return [(value, where)]
    if not isinstance(items, list):
        return [(value, where)]
    return [(item, f"{where}, item {index + 1}") for index, item in enumerate(items)]


def _understand(data: Any, where: str, problems: list[InvalidObject]) -> Manifest | None:
    """Decode and check one object; what is wrong is added to the problems."""
    try:
        kind = _kind(data, where)
        meta = data.get("metadata")
        if kind.namespaced and isinstance(meta, dict) and not meta.get("namespace"):
            data = {**data, "metadata": {**meta, "namespace": DEFAULT_NAMESPACE}}
        manifest = Manifest(kind, data, codec.from_dict(data, kind.type), where)
    except InvalidObject as problem:
        problems.append(_placed(problem, where))
        return None
    faults = validation.validate(manifest.object)
    problems += [_placed(fault, where) for fault in faults]
    return None if faults else manifest


def _kind(data: Any, where: str) -> kinds.Kind:
    if not isinstance(data, dict):
        problem = f"is {type(data).__name__}, not an object"
        raise InvalidObject(where, "", problem, remedy="write apiVersion, kind and metadata")
    for key in ("apiVersion", "kind"):
        if not isinstance(data.get(key), str):
            raise InvalidObject(where, key, "is missing", remedy="add it")
    try:
        return kinds.by_name(data["apiVersion"], data["kind"])
    except InvalidObject as unknown:
        meta = data.get("metadata")
        name = meta.get("name") if isinstance(meta, dict) else None
        if not isinstance(name, str):
            raise
        label = f"{unknown.obj} {name}"
        raise InvalidObject(label, unknown.field, unknown.problem, remedy=unknown.remedy) from None


def _placed(problem: InvalidObject, where: str) -> InvalidObject:
    """Add the place in the file to a problem's object."""
    if problem.obj == where:
        return problem
    label = f"{problem.obj} ({where})"
    return InvalidObject(label, problem.field, problem.problem, remedy=problem.remedy)


def _without_clashes(
    manifests: Sequence[Manifest], problems: list[InvalidObject]
) -> list[Manifest]:
    """Leave out what is there a second time."""
    kept: list[Manifest] = []
    owners: dict[tuple[Any, ...], tuple[str, str]] = {}
    for manifest in manifests:
        label = _label(manifest)
        for key, field, what in _claims(manifest):
            if key in owners:
                owner, place = owners[key]
                problem = f"{what} is used by {owner} ({place}) already"
                if field == "metadata.name":
                    problem = f"is there twice, first in {place}"
                remedy = "remove one of them, or change it"
                problems.append(
                    _placed(InvalidObject(label, field, problem, remedy=remedy), manifest.where)
                )
                break
        else:
            owners.update(
                dict.fromkeys((claim[0] for claim in _claims(manifest)), (label, manifest.where))
            )
            kept.append(manifest)
    return kept


def _label(manifest: Manifest) -> str:
    meta = manifest.data["metadata"]
    return manifest.kind.label(meta.get("namespace", ""), meta["name"])


def _claims(manifest: Manifest) -> list[tuple[tuple[Any, ...], str, str]]:
    """Return what only one object may have: (key, field, words)."""
    meta = manifest.data["metadata"]
    name = (manifest.kind.name, meta.get("namespace", ""), meta["name"])
    claims: list[tuple[tuple[Any, ...], str, str]] = [(name, "metadata.name", "this name")]
    service = manifest.object
    if not isinstance(service, Service):
        return claims
    for address in service_rules.canonical_cluster_ips(service):
        claims.append((("address", address), "spec.clusterIP", address))
    for index, port in enumerate(service.spec.ports or ()):
        if port.node_port:
            key = ("node port", port.node_port, port.protocol)
            claims.append((key, f"spec.ports[{index}].nodePort", f"node port {port.node_port}"))
    return claims
