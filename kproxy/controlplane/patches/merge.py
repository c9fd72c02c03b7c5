"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902). Pure; nothing given is changed."""

from typing import Any

from kproxy import errors

LONGEST_JSON_PATCH = 10_000
"""Operations in one JSON patch, as in Kubernetes."""


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

    Raises ApiError: 400 for what is no JSON patch, 422 for one that does not fit the value, also
    because a ``test`` failed.
    """
    import jsonpatch  # only the API server's process ever needs it, and not before the first one

    if not isinstance(operations, list) or len(operations) > LONGEST_JSON_PATCH:
        message = f"a JSON patch is a list of at most {LONGEST_JSON_PATCH} operations"
        raise errors.ApiError(400, "BadRequest", message)
    try:
        return jsonpatch.JsonPatch(operations).apply(old)
    except (jsonpatch.InvalidJsonPatch, TypeError, KeyError) as error:
        raise errors.ApiError(400, "BadRequest", f"no JSON patch: {error}") from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        message = f"the server rejected our request due to an error in our request: {error}"
        raise errors.ApiError(422, "Invalid", message) from None
