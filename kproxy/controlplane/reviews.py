"""Questions to the API server: who am I, may I, may he, whose token is this. Nothing is stored."""

from typing import Any

import msgspec

from kproxy import errors

from . import bodies, routes
from .access import authentication, roles, tokens
from .access.identity import User
from .access.roles import Attributes
from .requests import Answer, Options

Object = dict[str, Any]

_encode = msgspec.json.Encoder().encode


def answer(
    target: routes.ReviewTarget,
    user: User,
    body: bytes,
    options: Options,
    authenticator: authentication.Authenticator,
) -> Answer:
    """Answer a review. Raises ApiError 400 for one that asks nothing."""
    review = bodies.parse_object(body, options.content_type)
    spec = bodies.part(review, "spec")
    match target.review.kind:
        case "SelfSubjectAccessReview":
            status = _access(user, spec, "")
        case "SubjectAccessReview" | "LocalSubjectAccessReview":
            status = _access(_somebody(spec), spec, target.namespace)
        case "SelfSubjectRulesReview":
            status = _rules(user)
        case "TokenReview":
            status = _token(spec, authenticator)
        case _:
            status = {"userInfo": _user_info(user)}
    shown = {
        "kind": target.review.kind,
        "apiVersion": target.review.api_version,
        "metadata": review.get("metadata") or {},
        "spec": spec,
        "status": status,
    }
    return Answer(201, _encode(shown))


def _somebody(spec: Object) -> User:
    return User(name=str(spec.get("user", "")), groups=bodies.texts(spec, "groups"))


def _access(user: User, spec: Object, namespace: str) -> Object:
    asked = bodies.part(spec, "resourceAttributes")
    other = bodies.part(spec, "nonResourceAttributes")
    if bool(asked) == bool(other):
        message = "spec: exactly one of nonResourceAttributes or resourceAttributes is needed"
        raise errors.ApiError(422, "Invalid", message)
    if other:
        wanted = Attributes(verb=str(other.get("verb", "")), path=str(other.get("path", "/")))
    else:
        parts = {
            name: str(asked.get(name) or "")
            for name in ("verb", "group", "resource", "subresource", "namespace", "name")
        }
        parts["namespace"] = namespace or parts["namespace"]
        wanted = Attributes(**parts)
    if roles.allowed(user, wanted):
        return {"allowed": True, "reason": "the role of the user allows it"}
    return {"allowed": False, "reason": f'no role of "{user.name}" allows it'}


_EVERYTHING = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
_PATHS = [{"verbs": ["get"], "nonResourceURLs": list(roles.OPEN_PATHS)}]


def _rules(user: User) -> Object:
    everything = roles.allowed(user, Attributes(verb="*", group="*", resource="*"))
    own = [{"verbs": ["create"], "apiGroups": ["*"], "resources": ["selfsubjectaccessreviews"]}]
    return {
        "resourceRules": _EVERYTHING if everything else own,
        "nonResourceRules": _PATHS,
        "incomplete": not everything,
        "evaluationError": "" if everything else "built-in roles are not all listed here",
    }


def _token(spec: Object, authenticator: authentication.Authenticator) -> Object:
    audiences = bodies.texts(spec, "audiences") or (tokens.AUDIENCE,)
    found = authenticator.of_token(str(spec.get("token", "")), audiences)
    if found is None:
        return {"authenticated": False, "error": "invalid bearer token"}
    return {"authenticated": True, "user": _user_info(found.user), "audiences": found.audiences}


def _user_info(user: User) -> Object:
    info: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    return info
