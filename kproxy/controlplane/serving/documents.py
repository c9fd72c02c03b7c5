"""Answers that have nothing to do with objects: health, version, discovery, OpenAPI."""

import platform
from typing import Any

import msgspec

from .. import routes
from ..presentation import discovery, openapi, openapi_v2, resources
from ..requests import Answer
from ..store import Store

TEXT = "text/plain; charset=utf-8"
VERSION = {
    "major": "1",
    "minor": "31",
    "gitVersion": openapi.VERSION,
    "gitTreeState": "clean",
    "platform": f"linux/{platform.machine()}",
}
_HEALTH = ("/healthz", "/readyz", "/livez")

_encode = msgspec.json.Encoder().encode


def answer(path: str, accept: str, store: Store) -> Answer | None:
    """Return what is at a path; None if it is no path of a document. Raises ApiError 404."""
    top, _, rest = path.strip("/").partition("/")
    if f"/{top}" in _HEALTH:
        return _health(top, store)
    if path == "/":
        return _json({"paths": _paths()})
    if path == "/version":
        return _json(VERSION)
    if top == "openapi":
        return _openapi(rest, accept)
    return _discovery(path, accept)


def _health(name: str, store: Store) -> Answer:
    """Answer a health check: who cannot read the store is alive, but of no use to clients."""
    trouble = store.trouble
    if trouble and name != "livez":
        return Answer(503, f"[-]store failed: {trouble}\n{name} check failed\n".encode(), TEXT)
    return Answer(200, b"ok", TEXT)


def _discovery(path: str, accept: str) -> Answer | None:
    version = discovery.aggregated_version(accept)
    if version and (found := discovery.aggregated(path, version)) is not None:
        return Answer(200, _encode(found), discovery.AGGREGATED.format(version=version))
    plain = discovery.plain(path)
    return None if plain is None else _json(plain)


def _openapi(path: str, accept: str) -> Answer:
    if path == "v2":
        if "proto-openapi.spec.v2" in accept.partition(",")[0]:
            return Answer(200, openapi_v2.document(), openapi_v2.CONTENT_TYPE)
        return Answer(200, openapi_v2.json_document())
    if path == "v3":
        return _json(openapi.index())
    root, _, version = path.removeprefix("v3/").partition("/")
    known = version in resources.versions() and root == ("apis" if "/" in version else "api")
    if not path.startswith("v3/") or not known:
        raise routes.not_found()
    return Answer(200, openapi.document(version))


def _paths() -> list[str]:
    groups = [f"/apis/{one}" if "/" in one else f"/api/{one}" for one in resources.versions()]
    return [
        "/api",
        "/apis",
        *groups,
        *_HEALTH,
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/version",
    ]


def _json(document: Any) -> Answer:
    return Answer(200, _encode(document))
