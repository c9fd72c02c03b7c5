"""Lists: selected, by pages, of the newest state or of a version that is still remembered."""

from typing import Any

from kproxy import errors

from . import eventviews, pages, routes, selectors
from .requests import Answer, Options, Query, number
from .store import Store
from .views import View

Object = dict[str, Any]


def answer(store: Store, target: routes.Target, query: Query, options: Options) -> Answer:
    """Return a collection. Raises ApiError 410 for a version that is forgotten."""
    wanted, exact = _version(query)
    page = pages.page(
        store,
        eventviews.resource(target.kind),
        target.namespace,
        limit=number(query, "limit", 0),
        token=query.get("continue", ""),
        fresh=query.get("resourceVersion") != "0",
        at=wanted if exact else None,
        selected=selector(target, query),
    )
    if wanted > page.version:
        message = f"Too large resource version: {wanted}, current: {page.version}"
        raise errors.ApiError(504, "Timeout", message)
    meta: Object = {"resourceVersion": str(page.version)}
    if page.token:
        meta["continue"] = page.token
    if page.remaining is not None:
        meta["remainingItemCount"] = page.remaining
    return View(target.kind, options).many(page.items, meta)


def selector(target: routes.Target, query: Query) -> selectors.Predicate | None:
    """Return what the query (and the path, if it names an object) selects."""
    fields = query.get("fieldSelector", "")
    if target.name:
        fields = ",".join(part for part in (fields, f"metadata.name={target.name}") if part)
    return selectors.parse(query.get("labelSelector", ""), fields, target.kind.plural)


def _version(query: Query) -> tuple[int, bool]:
    """Return the version asked for (0: any), and whether it must be exactly that."""
    wanted = number(query, "resourceVersion", 0)
    match = query.get("resourceVersionMatch", "")
    if match not in ("", "Exact", "NotOlderThan"):
        message = f"resourceVersionMatch: {match!r}: known are Exact and NotOlderThan"
        raise errors.ApiError(400, "BadRequest", message)
    if match == "Exact" and not wanted:
        message = "resourceVersionMatch=Exact: resourceVersion must be given, not 0"
        raise errors.ApiError(400, "BadRequest", message)
    return wanted, match == "Exact"
