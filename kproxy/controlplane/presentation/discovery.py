"""Discovery: which groups, versions and resources there are, plain and aggregated (v2)."""

from collections.abc import Iterator
from typing import Any

from kproxy.api import kinds

from . import resources

Object = dict[str, Any]

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def aggregated_version(accept: str) -> str:
    """Return the version of aggregated discovery that a client prefers to plain; or nothing."""
    first = accept.partition(",")[0].replace(" ", "")
    for version in ("v2", "v2beta1"):
        if first == AGGREGATED.format(version=version):
            return version
    return ""


def plain(path: str) -> Object | None:
    """Return the plain document of a path; None if there is none."""
    served = resources.versions()
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        groups = [_group(version) for version in served if "/" in version]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    name = path.removeprefix("/apis/" if path.startswith("/apis/") else "/api/")
    if path == f"/apis/{name}" and "/" not in name:
        found = [_group(version) for version in served if version.startswith(f"{name}/")]
        return {"kind": "APIGroup", "apiVersion": "v1", **found[0]} if found else None
    root = "/apis/" if "/" in name else "/api/"
    if name not in served or path != root + name:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": name,
        "resources": list(_resource_list(name)),
    }


def _group(api_version: str) -> Object:
    group, _, version = api_version.partition("/")
    preferred = {"groupVersion": api_version, "version": version}
    return {"name": group, "versions": [preferred], "preferredVersion": preferred}


def _resource_list(api_version: str) -> Iterator[Object]:
    for kind in resources.of_version(api_version):
        entry: Object = {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.name,
            "verbs": list(resources.VERBS),
        }
        if names := resources.SHORT_NAMES.get(kind.plural):
            entry["shortNames"] = list(names)
        if categories := resources.CATEGORIES.get(kind.plural):
            entry["categories"] = list(categories)
        yield entry
        for part in resources.subresources(kind).values():
            yield _subresource(kind, part)
    for review in resources.REVIEWS:
        if review.api_version == api_version:
            yield {
                "name": review.plural,
                "singularName": review.kind.lower(),
                "namespaced": review.namespaced,
                "kind": review.kind,
                "verbs": ["create"],
            }


def _subresource(kind: kinds.Kind, part: resources.Subresource) -> Object:
    entry: Object = {
        "name": f"{kind.plural}/{part.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": part.kind,
        "verbs": list(part.verbs),
    }
    if part.api_version != kind.api_version:
        group, _, version = part.api_version.rpartition("/")
        entry |= {"group": group, "version": version}
    return entry


def aggregated(path: str, version: str) -> Object | None:
    """Return everything below ``/api`` or ``/apis`` in one document; None for other paths."""
    if path not in ("/api", "/apis"):
        return None
    served = [one for one in resources.versions() if ("/" in one) == (path == "/apis")]
    groups: dict[str, list[Object]] = {}
    for api_version in served:
        group, _, name = api_version.rpartition("/")
        entry = {"version": name, "resources": _gathered(api_version), "freshness": "Current"}
        groups.setdefault(group, []).append(entry)
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [
            {"metadata": {"name": group} if group else {}, "versions": versions}
            for group, versions in groups.items()
        ],
    }


def _gathered(api_version: str) -> list[Object]:
    group, _, version = api_version.rpartition("/")
    found: dict[str, Object] = {}
    for plain_entry in _resource_list(api_version):
        name, _, part = plain_entry["name"].partition("/")
        kind = {
            "group": plain_entry.get("group", group),
            "version": plain_entry.get("version", version),
            "kind": plain_entry["kind"],
        }
        if part:
            entry = {"subresource": part, "responseKind": kind, "verbs": plain_entry["verbs"]}
            found[name].setdefault("subresources", []).append(entry)
            continue
        entry = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if plain_entry["namespaced"] else "Cluster",
            "singularResource": plain_entry["singularName"],
            "verbs": plain_entry["verbs"],
        }
        for key in ("shortNames", "categories"):
            if key in plain_entry:
                entry[key] = plain_entry[key]
        found[name] = entry
    return list(found.values())
