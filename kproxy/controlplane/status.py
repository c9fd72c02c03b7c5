"""``kind: Status``: how the API server says what went wrong, or that a deletion is done. Pure."""

from typing import Any

from kproxy import errors

Object = dict[str, Any]


def success(resource: str, name: str, uid: str) -> Object:
    """Return the answer to a deletion that is done."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": name, "kind": resource, "uid": uid},
    }


def failure(error: Exception) -> Object:
    """Return the Status of an error; its ``code`` is the HTTP status.

    InvalidObject, and several in an exception group, are 422 with their fields as causes; any
    error that is not ours is 500 and keeps its text to itself.
    """
    if isinstance(error, errors.ApiError):
        return _status(error.code, error.reason, error.message)
    if isinstance(error, errors.InvalidObject):
        return _invalid([error])
    if isinstance(error, ExceptionGroup):
        problems = [inner for inner in error.exceptions if isinstance(inner, errors.InvalidObject)]
        if problems and len(problems) == len(error.exceptions):
            return _invalid(problems)
    return _status(500, "InternalError", f"internal error: {type(error).__name__}")


def _invalid(problems: list[errors.InvalidObject]) -> Object:
    kind, _, name = problems[0].obj.partition(" ")
    status = _status(422, "Invalid", "; ".join(str(problem) for problem in problems))
    status["details"] = {
        "kind": kind,
        "name": name.rpartition("/")[2],
        "causes": [
            {"reason": "FieldValueInvalid", "message": problem.problem, "field": problem.field}
            for problem in problems
        ],
    }
    return status


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
