"""Lists in pages (``limit`` and ``continue``): all pages of a list show one version.

A token says which version, and after which object to go on. It is for sending back, not for
reading. Old versions are known as long as the history of changes reaches.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from kproxy import errors

from .store import Store
from .versions import Item, Key, Object, key_of


class _Token(msgspec.Struct, frozen=True):
    version: int
    after: Key


_decode = msgspec.json.Decoder(_Token).decode  # here: see kproxy.api.codec.prepare


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    items: list[Item]
    version: int
    token: str
    """Asks for the next page; empty: this is the last."""
    remaining: int | None
    """How many objects follow; None: nobody counted those that match the selectors."""


def page(
    store: Store,
    resource: str,
    namespace: str = "",
    *,
    limit: int,
    token: str = "",
    fresh: bool = True,
    at: int | None = None,
    selected: Callable[[Object], bool] | None = None,
) -> Page:
    """Return at most ``limit`` objects (0: all), those after ``token`` if there is one.

    Raises ApiError 400 for a token that is none, Gone (410) for a version that is forgotten.
    """
    start = _parse(token) if token else None
    items, version = store.list(
        resource, namespace, fresh=fresh, at=start.version if start else at
    )
    if start is not None:
        after = start.after
        items = [item for item in items if key_of(item.obj) > after]
    if selected is not None:
        items = [item for item in items if selected(item.obj)]
    if not limit or len(items) <= limit:
        return Page(items, version, "", None)
    left = len(items) - limit
    items = items[:limit]
    following = _format(_Token(version, key_of(items[-1].obj)))
    return Page(items, version, following, left if selected is None else None)


def _format(token: _Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _parse(text: str) -> _Token:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return _decode(raw)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        message = "continue key is not valid: not a token of this server"
        raise errors.ApiError(400, "BadRequest", message) from None
