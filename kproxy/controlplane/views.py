"""Objects in the form that a client wants: as they are, as a table, or their metadata only."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from kproxy.api import kinds

from . import eventviews
from .presentation import tables
from .presentation.tables import Form
from .requests import Answer, Options
from .versions import Item

Object = dict[str, Any]

_encode = msgspec.json.Encoder().encode


class View:
    """How objects of one kind are shown in the answer to one request."""

    def __init__(
        self, kind: kinds.Kind, options: Options, now: Callable[[], float] = time.time
    ) -> None:
        self._kind = kind
        self._form, self._version = tables.form(options.accept)
        self._include = options.include
        self._now = now
        self._has_columns = False

    def one(self, item: Item, code: int = 200, warnings: tuple[str, ...] = ()) -> Answer:
        """Return the answer that holds one object."""
        if self._form is Form.TABLE:
            meta = {"resourceVersion": item.obj["metadata"].get("resourceVersion", "")}
            body = _encode(self._table([item.obj], meta))
        else:
            body = self._raw(item)
        return Answer(code, body, warnings=warnings)

    def many(self, items: Sequence[Item], meta: Object) -> Answer:
        """Return the answer that holds a list; ``meta`` is the list's metadata."""
        if self._form is Form.TABLE:
            return Answer(200, _encode(self._table([item.obj for item in items], meta)))
        kind, version = f"{self._kind.name}List", self._kind.api_version
        if self._form is not Form.PLAIN:
            kind, version = Form.METADATA_LIST.value, f"meta.k8s.io/{self._version}"
        head = _encode({"kind": kind, "apiVersion": version, "metadata": meta})
        raws = b",".join(self._raw(item) for item in items)
        return Answer(200, head[:-1] + b',"items":[' + raws + b"]}")

    def watched(self, item: Item) -> bytes:
        """Return an object as an event of a watch holds it."""
        if self._form is not Form.TABLE:
            return self._raw(item)
        meta = {"resourceVersion": item.obj["metadata"].get("resourceVersion", "")}
        table = self._table([item.obj], meta, head=not self._has_columns)
        self._has_columns = True
        return _encode(table)

    def bookmark(self, version: int, annotations: Object | None = None) -> bytes:
        """Return what a BOOKMARK holds: nothing but a version."""
        meta: Object = {"resourceVersion": str(version)}
        if annotations:
            meta["annotations"] = annotations
        if self._form is Form.TABLE:
            return _encode(self._table([], meta, head=False))
        identity = {"kind": self._kind.name, "apiVersion": self._kind.api_version}
        if self._form is not Form.PLAIN:
            identity = tables.metadata_only({"metadata": {}}, self._version)
        return _encode({**identity, "metadata": meta})

    def _raw(self, item: Item) -> bytes:
        if self._form is Form.PLAIN:
            if not eventviews.is_view(self._kind):
                return item.raw
            return _encode(eventviews.shown(self._kind, item.obj))
        return _encode(tables.metadata_only(item.obj, self._version))

    def _table(self, objects: Sequence[Object], meta: Object, *, head: bool = True) -> Object:
        shown = [eventviews.shown(self._kind, obj) for obj in objects]
        return tables.table(
            self._kind,
            shown,
            meta,
            self._now(),
            version=self._version,
            include=self._include,
            head=head,
        )
