"""``kind: Table``: objects as rows, which is what ``kubectl get`` asks for and prints.

Which of the forms a client wants is in its Accept header: an object as it is, as a row of a table,
or its metadata only.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from kproxy.api import kinds

from . import columns

Object = dict[str, Any]


class Form(StrEnum):
    """How objects are to be shown; the values are those of ``as=`` in Accept."""

    PLAIN = ""
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"
    METADATA_LIST = "PartialObjectMetadataList"


def form(accept: str) -> tuple[Form, str]:
    """Return the first form in an Accept header that we have, and its version of meta.k8s.io."""
    for option in accept.split(","):
        media, *settings = (part.strip() for part in option.split(";"))
        found = dict(setting.partition("=")[::2] for setting in settings)
        name = found.get("as", "")
        if name in Form.__members__.values() and media in ("application/json", "*/*", ""):
            return Form(name), found.get("v", "v1")
    return Form.PLAIN, "v1"


def definitions(kind: kinds.Kind) -> list[Object]:
    """Return the columns of a kind's table."""
    chosen = columns.BY_RESOURCE.get(kind.plural, columns.DEFAULT)
    names = ["Name", *chosen.names]
    if kind.plural == "events":
        names = names[1:]
    first_wide = len(names) - chosen.wide
    return [
        {
            "name": name,
            "type": "string",
            "format": "name" if name == "Name" and index == 0 else "",
            "description": f"{name} of the {kind.name}",
            "priority": int(index >= first_wide),
        }
        for index, name in enumerate(names)
    ]


def row(kind: kinds.Kind, obj: Object, now: float, include: str, version: str) -> Object:
    """Return an object as a row. ``include``: which part of it comes with the row.

    That is ``Metadata`` (the default), ``Object`` or ``None``, as in the query's includeObject.
    """
    chosen = columns.BY_RESOURCE.get(kind.plural, columns.DEFAULT)
    cells = chosen.row(obj, now)
    if kind.plural != "events":
        cells = [obj["metadata"]["name"], *cells]
    made: Object = {"cells": cells}
    match include:
        case "Object":
            made["object"] = obj
        case "None":
            made["object"] = None
        case _:
            made["object"] = metadata_only(obj, version)
    return made


def table(
    kind: kinds.Kind,
    objects: Sequence[Object],
    meta: Object,
    now: float,
    *,
    version: str = "v1",
    include: str = "",
    head: bool = True,
) -> Object:
    """Return a table; without ``head`` its columns are left out, as in a watch's later events."""
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": meta,
        "columnDefinitions": definitions(kind) if head else None,
        "rows": [row(kind, obj, now, include, version) for obj in objects],
    }


def metadata_only(obj: Object, version: str = "v1") -> Object:
    """Return an object without anything but its metadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj["metadata"],
    }
