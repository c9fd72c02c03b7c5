"""From a request to its answer: who asks, may he, which verb.

The order matters: who may not do it is refused before his body is read.
"""

import functools
import socket
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kproxy import errors
from kproxy.api import catalog

from .. import bodies, requests, reviews, routes, selectors
from ..access import authentication, noderules, roles
from ..access.authentication import Authenticator
from ..access.identity import EVERYBODY, User
from ..access.roles import Attributes
from ..requests import Answer, Options, Query
from ..rest import Api
from ..versions import Object
from . import documents
from .http1 import Request
from .kubelets import Kubelets
from .metrics import Metrics

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that comes bit by bit; an empty bit is an occasion to look for the client."""

    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A connection to somebody else, to which the client's is to be joined."""

    other: socket.socket
    first: bytes = b""
    """What the client is told before anything from there."""
    listens: bool = False
    """Whether the client has said everything, and nothing more is handed on."""


Outcome = Answer | Stream | Tunnel
Certificate = Mapping[str, Any] | None


@dataclass(slots=True, kw_only=True)
class Call:
    """A request on its way; ``asked`` is filled in for the log and the metrics."""

    request: Request
    certificate: Certificate
    read_body: Callable[[], bytes]
    asked: Attributes = field(default_factory=lambda: Attributes(verb=""))
    version: str = ""


class Dispatcher:
    """Answers requests. May be used from several threads.

    Without an ``authenticator`` nobody is asked who he is, and everybody may do everything.
    """

    def __init__(
        self,
        api: Api,
        metrics: Metrics,
        kubelets: Kubelets,
        authenticator: Authenticator | None = None,
    ) -> None:
        self.api = api
        self._metrics = metrics
        self._kubelets = kubelets
        self._authenticator = authenticator

    def answer(self, call: Call) -> Outcome:
        """Answer a request. Raises what :mod:`status` can say."""
        request = call.request
        if self.api.store.closed:
            message = "the API server is stopping"
            raise errors.ApiError(503, "ServiceUnavailable", message)
        path = urllib.parse.unquote(request.path).rstrip("/") or "/"
        query = dict(urllib.parse.parse_qsl(request.query, keep_blank_values=True))
        accept = request.headers.get("accept", "")
        options = requests.options(query, accept, request.headers.get("content-type", ""))
        user = self._user(call)
        review = routes.review(path)
        if review is not None:
            return self._review(call, user, review, options)
        if not _names_objects(path):
            return self._document(call, user, path, accept)
        return self._object(call, user, path, query, options)

    def _user(self, call: Call) -> User:
        headers = call.request.headers
        user = EVERYBODY
        if self._authenticator is not None:
            user = self._authenticator.user(call.certificate, headers.get("authorization", ""))
        return authentication.acting(user, headers)

    def _document(self, call: Call, user: User, path: str, accept: str) -> Answer:
        call.asked = Attributes(verb=call.request.method.lower(), path=path)
        if call.request.method == "HEAD":
            call.asked = Attributes(verb="get", path=path)
        self._authorize(user, call.asked)
        if call.request.method in ("GET", "HEAD"):
            if path == "/metrics":
                return Answer(200, self._metrics.text(), METRICS_TYPE)
            found = documents.answer(path, accept, self.api.store)
            if found is not None:
                return found
        raise routes.not_found()

    def _review(
        self, call: Call, user: User, review: routes.ReviewTarget, options: Options
    ) -> Answer:
        if call.request.method != "POST":
            raise routes.method_not_allowed()
        group, _, call.version = review.review.api_version.rpartition("/")
        call.asked = Attributes(
            verb="create", group=group, resource=review.review.plural, namespace=review.namespace
        )
        self._authorize(user, call.asked)
        authenticator = self._authenticator or Authenticator()
        return reviews.answer(review, user, call.read_body(), options, authenticator)

    def _object(
        self, call: Call, user: User, path: str, query: Query, options: Options
    ) -> Outcome:
        target = routes.target(path)
        call.asked = attributes(call.request.method, target, query)
        call.version = target.kind.api_version.rpartition("/")[2]
        self._authorize(user, call.asked)
        if target.subresource in ("log", "exec"):
            return self._kubelet(call, target, query)
        body = call.read_body()
        if user.node:
            self._check_node(user, call.asked, query, body, options)
            options = replace(options, guard=functools.partial(noderules.check_change, user))
        match call.asked.verb:
            case "get":
                return self.api.get(target, options)
            case "list":
                return self.api.list(target, query, options)
            case "watch":
                return Stream(self.api.watch(target, query, options))
            case "create":
                return self.api.create(target, body, options)
            case "update":
                return self.api.replace(target, body, options)
            case "patch":
                return self.api.patch(target, body, options)
            case "delete" | "deletecollection":
                return self.api.delete(target, query, body, options)
        raise routes.method_not_allowed()

    def _kubelet(self, call: Call, target: routes.Target, query: Query) -> Outcome:
        if target.subresource == "exec":
            return Tunnel(self._kubelets.open_exec(target.namespace, target.name, call.request))
        if call.asked.verb != "get":
            raise routes.method_not_allowed()
        log = self._kubelets.open_log(target.namespace, target.name, query)
        return Tunnel(*log, listens=True)

    def _authorize(self, user: User, asked: Attributes) -> None:
        if user is not EVERYBODY and not roles.allowed(user, asked):
            raise noderules.forbidden(user, asked)

    def _check_node(
        self, user: User, asked: Attributes, query: Query, body: bytes, options: Options
    ) -> None:
        noderules.check(
            user,
            asked,
            selectors.equal_fields(query.get("fieldSelector", "")),
            lambda: bodies.parse_object(body, options.content_type),
            self._find,
            self._pods_on,
        )

    def _find(self, resource: str, namespace: str, name: str) -> Object | None:
        store, key = self.api.store, (namespace, name)
        item = store.peek(resource, key)
        if item is None:  # it may be newer than our memory
            item = store.find(resource, key)
        return None if item is None else item.obj

    def _pods_on(self, node: str) -> Iterator[Object]:
        items, _ = self.api.store.list(catalog.POD.plural)
        return (item.obj for item in items if item.obj["spec"].get("nodeName") == node)


def _names_objects(path: str) -> bool:
    """Return whether a path leads below a version of the API."""
    parts = path.strip("/").split("/")
    return len(parts) > {"api": 2, "apis": 3}.get(parts[0], len(parts))


def attributes(method: str, target: routes.Target, query: Query) -> Attributes:
    """Return what a request asks for. Raises ApiError 405."""
    one = bool(target.name)
    if method in ("GET", "HEAD"):
        verb = "get" if one else "list"
        if method == "GET" and requests.truth(query, "watch") and not target.subresource:
            verb = "watch"
    else:
        collection = {"POST": "create", "DELETE": "deletecollection"}
        single = {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        if target.subresource:
            single = {"PUT": "update", "PATCH": "patch", "POST": "create"}
        verb = (single if one else collection).get(method, "")
    if not verb:
        raise routes.method_not_allowed()
    return Attributes(
        verb=verb,
        group=routes.group_of(target.kind),
        resource=target.kind.plural,
        subresource=target.subresource,
        namespace=target.namespace,
        name=target.name,
    )
