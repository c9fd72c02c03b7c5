"""What is served: the webhook, the audit log, health and metrics."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from kproxy import exposition
from kproxy.errors import InvalidObject, KproxyError
from kproxy.logs import Log

from . import journal, webhook
from .book import Policy
from .http1 import Answer, Request, problem
from .journal import JournalFailed
from .ledger import Ledger
from .metrics import Metrics
from .records import AnyRecord, Snapshot
from .reporter import Reporter
from .tokens import Token

WEBHOOK = "/alerts"
AUDIT = "/audit"
AUDIT_MOST = 1000
"""Records that ``/audit`` shows where ``limit`` does not say less."""
_METHODS = {
    WEBHOOK: ("POST",),
    AUDIT: ("GET", "HEAD"),
    "/healthz": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
}
_CLOSED = (WEBHOOK, AUDIT)


class Receiver:
    """Answers requests. Fits ``server.Pages``; called from several threads."""

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        token: Token,
        *,
        directory: Path,
        metrics: Metrics,
        reporter: Reporter,
        alive: Callable[[], bool],
        log: Log,
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._token = token
        self._directory = directory
        self._metrics = metrics
        self._reporter = reporter
        self._alive = alive
        self._log = log

    def refuse(self, request: Request) -> Answer | None:
        """Return why a request is not answered: path, method or credentials."""
        methods = _METHODS.get(request.path)
        if methods is None:
            return problem(404, f"there is {', '.join(_METHODS)}")
        if request.path in _CLOSED and not self._token.admits(request.headers):
            self._metrics.notifications.add("unauthenticated")
            return problem(401, "a bearer token is needed", **{"WWW-Authenticate": "Bearer"})
        if request.method not in methods:
            return problem(405, f"use {methods[0]}", Allow=", ".join(methods))
        return None

    def broken(self, code: int) -> None:
        """Count what was no request, or one too many."""
        self._metrics.notifications.add("crowded" if code == 503 else "malformed")

    def answer(self, request: Request, body: bytes, peer: str) -> Answer:
        """Answer a request that was not refused."""
        if request.path == WEBHOOK:
            return self.accept(body, peer)
        if request.path == AUDIT:
            return self._audit(request.query)
        if request.path == "/metrics":
            text = self._metrics.registry.text().encode()
            return Answer(200, text, exposition.CONTENT_TYPE)
        if self._alive():
            return Answer(200, b"ok\n", "text/plain; charset=utf-8")
        return Answer(503, b"the worker has ended\n", "text/plain; charset=utf-8")

    def accept(self, body: bytes, peer: str) -> Answer:
        """Take a notification: 200 once it is on disk, 400 if it cannot be read, 500 otherwise."""
        try:
            record = self._ledger.accept(webhook.decode(body), peer, self._policy)
        except InvalidObject as error:
            self._metrics.notifications.add("malformed")
            self._log.warning("notification refused", peer=peer, error=str(error))
            return problem(400, str(error))
        except JournalFailed as error:
            self._metrics.notifications.add("not-stored")
            self._log.error("notification not stored", peer=peer, error=str(error))
            return problem(500, str(error))
        self._reporter.accepted(record)
        said = [{"fingerprint": seen.fingerprint, "said": seen.said} for seen in record.alerts]
        return Answer(200, msgspec.json.encode({"alerts": said}) + b"\n")

    def _audit(self, query: str) -> Answer:
        limit = query.removeprefix("limit=")
        most = min(int(limit), AUDIT_MOST) if limit.isdecimal() else AUDIT_MOST
        try:
            kept = journal.read(self._directory)
            # A snapshot is nothing that happened.
            told = (one for one in kept if not isinstance(one, Snapshot))
            records: deque[AnyRecord] = deque(told, maxlen=most)
        except KproxyError as error:
            return problem(500, str(error))
        return Answer(200, audit_json(records))


def audit_json(records: "deque[AnyRecord]") -> bytes:
    """Return records as a JSON list of objects, the oldest first."""
    return b"[" + b",\n".join(map(msgspec.json.encode, records)) + b"]\n"
