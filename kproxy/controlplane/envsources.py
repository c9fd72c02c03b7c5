"""ConfigMaps and Secrets from which containers take variables, as the API server has them.

The kubelet's loop never waits: what a container asks for is fetched by a thread of its own, and
the container is started when there is an answer. Each start asks anew, so a container that is
started again gets what is there now; what runs keeps what it has, as in Kubernetes.
"""

import base64
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kproxy import errors
from kproxy.api import catalog, kinds

from .backoff import RetryBackoff

Object = dict[str, Any]
Ask = Callable[[kinds.Kind, str, str], Object | None]
"""Reads an object: its kind, namespace and name; None: there is none. Raises KproxyError."""
Values = Mapping[str, str]
Ref = tuple[str, str, str]

FRESH_SECONDS = 5.0
"""So long an answer is good: for the start that has asked for it, and others of that moment."""
MOST_SECONDS = 2.0
"""The longest wait after a failure."""
FORGOTTEN_SECONDS = 30.0
"""What nobody has looked up for so long is asked for no more: its pod is gone."""
KINDS = {"configmap": catalog.CONFIG_MAP, "secret": catalog.SECRET}
"""By the word that Kubernetes' messages have for them."""


class NotYet(errors.KproxyError):
    """It was asked for, and there is no answer yet; the message says why, if there is a reason."""


class EnvSources:
    """What is asked for and answered on one node. Only :meth:`run` and :meth:`fetch` wait.

    ``wake`` is called, from the thread of :meth:`run`, when there are answers; ``now``: a
    monotonic clock in seconds.
    """

    def __init__(
        self, ask: Ask, *, wake: Callable[[], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask, self._wake, self._now = ask, wake, now
        self._wanted: dict[Ref, str] = {}
        """What is asked for, and why there is no answer yet."""
        self._looked_up: dict[Ref, float] = {}
        """When somebody last looked up what is asked for."""
        self._answers: dict[Ref, tuple[float, Values | None]] = {}
        self._changed = threading.Condition()  # guards both
        self._backoff = RetryBackoff(MOST_SECONDS)
        self._stopped = self._fresh = False

    def look_up(self, what: str, namespace: str, name: str) -> Values | None:
        """Return the values of one of KINDS; None: there is no such object. Raises NotYet."""
        ref = (what, namespace, name)
        with self._changed:
            since, values = self._answers.get(ref, (-FRESH_SECONDS, None))
            if ref in self._answers and self._now() - since <= FRESH_SECONDS:
                return values
            self._looked_up[ref] = self._now()
            if ref not in self._wanted:
                self._wanted[ref] = ""
                self._fresh = True
                self._changed.notify_all()
            raise NotYet(self._wanted[ref])

    def fetch(self) -> float | None:
        """Ask for what is wanted, each once; return seconds until the next try, if any failed."""
        with self._changed:
            self._fresh = False
            self._forget()
            wanted = list(self._wanted)
        wait = None
        for ref in wanted:
            what, namespace, name = ref
            try:
                values = _values(what, self._ask(KINDS[what], namespace, name))
            except errors.KproxyError as error:
                with self._changed:
                    self._wanted[ref] = f"{what} {name!r}: {error}"
                wait = self._backoff.failed("")
                continue
            with self._changed:
                del self._wanted[ref], self._looked_up[ref]
                now = self._now()
                self._answers = {
                    one: answer
                    for one, answer in self._answers.items()
                    if now - answer[0] <= FRESH_SECONDS
                } | {ref: (now, values)}
        if wait is None:
            self._backoff.succeeded("")
        if wanted:
            self._wake()
        return wait

    def _forget(self) -> None:
        since = self._now() - FORGOTTEN_SECONDS
        for ref in [ref for ref, asked in self._looked_up.items() if asked < since]:
            del self._wanted[ref], self._looked_up[ref]

    def run(self) -> None:
        """Fetch what is asked for until :meth:`stop`."""
        wait: float | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._fresh, wait)
                if self._stopped:
                    return
            wait = self.fetch()

    def stop(self) -> None:
        """Make :meth:`run` return."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def _values(what: str, found: Object | None) -> Values | None:
    """Return the values that may become variables; None if there is no object."""
    if found is None:
        return None
    data = found.get("data") or {}
    if what == "secret":
        return {
            name: base64.b64decode(text).decode(errors="replace") for name, text in data.items()
        }
    return {name: str(text) for name, text in data.items()}
