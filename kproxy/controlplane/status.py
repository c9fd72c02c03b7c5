"""``kind: Status``: how the API server says what went wrong, or that a deletion is done. Pure."""

import re
from typing import Any

from kproxy import errors
from kproxy.api import kinds

from . import routes
from .patches.managers import ApplyConflict

Object = dict[str, Any]

_ABOUT = re.compile(r'(?:Operation cannot be fulfilled on )?(?P<kind>[a-z]+) "(?P<name>[^"]+)"')
_REASONS = (
    ("is missing", "FieldValueRequired"),
    ("unsupported value", "FieldValueNotSupported"),
    ("duplicate", "FieldValueDuplicate"),
    ("may not", "FieldValueForbidden"),
    ("may only be used", "FieldValueForbidden"),
    ("are forbidden", "FieldValueForbidden"),
    ("can be added", "FieldValueForbidden"),
    ("not found", "FieldValueNotFound"),
)


def success() -> Object:
    """Return the answer to what is done and has nothing to show for it."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def deleted(resource: str, name: str, uid: str) -> Object:
    """Return the answer to a deletion that is done."""
    return {**success(), "details": {"name": name, "kind": resource, "uid": uid}}


def failure(error: Exception) -> Object:
    """Return the Status of an error; its ``code`` is the HTTP status.

    InvalidObject, and several in an exception group, are 422 with their fields as causes; any
    error that is not ours is 500 and keeps its text to itself.
    """
    if isinstance(error, errors.ApiError):
        return _of_api_error(error)
    if isinstance(error, errors.InvalidObject):
        return _invalid([error])
    if isinstance(error, ExceptionGroup):
        problems = [inner for inner in error.exceptions if isinstance(inner, errors.InvalidObject)]
        if problems and len(problems) == len(error.exceptions):
            return _invalid(problems)
    return _status(500, "InternalError", f"internal error: {type(error).__name__}")


def _of_api_error(error: errors.ApiError) -> Object:
    message = error.message
    details: Object = {}
    if about := _ABOUT.match(message):
        details |= {"name": about["name"], "kind": about["kind"]}
        if group := _group_of(about["kind"]):
            # The store knows resources, not groups; clients want to be told both.
            place = about.end("kind")
            message = f"{message[:place]}.{group}{message[place:]}"
            details["group"] = group
    status = _status(error.code, error.reason, message)
    if error.retry_after:
        details["retryAfterSeconds"] = int(error.retry_after)
    if isinstance(error, ApplyConflict):
        details["causes"] = [
            {"reason": "FieldManagerConflict", "message": message, "field": field}
            for message, field in error.causes
        ]
    return {**status, "details": details}


def _group_of(plural: str) -> str:
    found = (routes.group_of(kind) for kind in kinds.known() if kind.plural == plural)
    return next(found, "")


def _invalid(problems: list[errors.InvalidObject]) -> Object:
    kind, _, label = problems[0].obj.partition(" ")
    name = label.rpartition("/")[2] if label != "without a name" else ""
    told = [f"{problem.field}: {_words(problem)}" for problem in problems]
    joined = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    group = next((routes.group_of(one) for one in kinds.known() if one.name == kind), "")
    full = f"{kind}.{group}" if group else kind
    status = _status(422, "Invalid", f'{full} "{name}" is invalid: {joined}')
    status["details"] = {
        "kind": kind,
        "group": group,
        "name": name,
        "causes": [
            {"reason": _reason(problem), "message": _words(problem), "field": problem.field}
            for problem in problems
        ],
    }
    return status


def _words(problem: errors.InvalidObject) -> str:
    """Return what is wrong, and what to do, with the words that Kubernetes begins with."""
    first = {
        "FieldValueRequired": "Required value",
        "FieldValueNotSupported": "Unsupported value",
        "FieldValueDuplicate": "Duplicate value",
        "FieldValueForbidden": "Forbidden",
        "FieldValueNotFound": "Not found",
    }.get(_reason(problem), "Invalid value")
    remedy = f" ({problem.remedy})" if problem.remedy else ""
    return f"{first}: {problem.problem}{remedy}"


def _reason(problem: errors.InvalidObject) -> str:
    found = (reason for words, reason in _REASONS if words in problem.problem)
    return next(found, "FieldValueInvalid")


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": {},  # kubectl debug looks into it without asking whether it is there
        "code": code,
    }
