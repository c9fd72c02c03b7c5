"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902). Pure; nothing given is changed."""

import copy
from typing import Any

import msgspec

from kproxy import errors

LONGEST_JSON_PATCH = 10_000
"""Operations in one JSON patch, as in Kubernetes."""
LARGEST_COPIES = 3 * 1024 * 1024
"""Bytes that all copies of one JSON patch may add, as in Kubernetes: thirty can make a billion."""

_encode = msgspec.json.Encoder().encode


def merge(old: Any, patch: Any) -> Any:
    """Return what a merge patch makes of a value (RFC 7386, section 2)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def json_patch(old: Any, operations: Any) -> Any:
    """Return what the operations of a JSON patch make of a value.

    Raises ApiError: 400 for what is no JSON patch, 413 for one that copies too much, 422 for one
    that does not fit the value, also because a ``test`` failed.
    """
    import jsonpatch  # only the API server's process ever needs it, and not before the first one

    if not isinstance(operations, list) or len(operations) > LONGEST_JSON_PATCH:
        message = f"a JSON patch is a list of at most {LONGEST_JSON_PATCH} operations"
        raise errors.ApiError(400, "BadRequest", message)
    try:
        jsonpatch.JsonPatch(operations)  # judges all of them before the first is done
        new = copy.deepcopy(old)
        copied = 0
        # What one operation adds, the next may change: the patch itself is needed for a retry.
        for operation in copy.deepcopy(operations):
            if operation["op"] == "copy":
                source = jsonpatch.JsonPointer(operation["from"]).resolve(new)
                copied += len(_encode(source))
                if copied > LARGEST_COPIES:
                    raise _copies_too_much()
            new = jsonpatch.JsonPatch([operation]).apply(new, in_place=True)
        return new
    except (jsonpatch.InvalidJsonPatch, TypeError, KeyError) as error:
        raise errors.ApiError(400, "BadRequest", f"no JSON patch: {error}") from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        message = f"the server rejected our request due to an error in our request: {error}"
        raise errors.ApiError(422, "Invalid", message) from None


def _copies_too_much() -> errors.ApiError:
    message = f"the copies of a JSON patch may add {LARGEST_COPIES} bytes, not more"
    return errors.ApiError(413, "RequestEntityTooLarge", message)
