"""Files by which the programs of a pod prove who they are: ``token``, ``ca.crt``, ``namespace``.

A token (TokenRequest) is bound to its pod and expires, so it is asked for again when most of its
time is over, and its file replaced. The API server may be away: a thread of its own asks it, and
the kubelet's loop is only told when a pod that waits for its first token has got one.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kproxy import errors, logs
from kproxy.api.pods import Pod
from kproxy.client.kubeconfig import SERVICE_ACCOUNT, SERVICE_ACCOUNT_VARIABLE, Access

from .backoff import RetryBackoff

Object = dict[str, Any]
Ask = Callable[[str, str, Object], Object]
"""Asks for a token of a service account: its namespace, its name, a TokenRequest."""

TOKEN_SECONDS = 3607
"""What Kubernetes asks for where a pod says nothing."""
RENEW_AT = 0.8
"""Part of a token's lifetime after which the next one is asked for."""
MOST_SECONDS = 2.0
"""The longest wait after a failure: pods wait for their first token."""
_NO_TOKENS = 501
_WAY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the files lie, and what they and the environment say of the API server."""

    directory: Path
    """Has a directory for each pod, named by its uid."""
    access: Access
    """The kubelet's own way to the API server; pods take the same."""
    seconds: int = TOKEN_SECONDS
    """For how long tokens are asked for."""

    def useful(self) -> bool:
        """Return whether pods can prove anything: over TLS, to an API server that asks."""
        access = self.access
        proof = access.cert_file or access.cert_data or access.token or access.token_file
        authority = access.ca_file or access.ca_data
        return access.server.startswith("https://") and bool(proof) and bool(authority)

    def address(self) -> tuple[str, int]:
        """Return host and port of the API server."""
        url = urlsplit(self.access.server)
        return url.hostname or "", url.port or 443

    def authority(self) -> str:
        """Return the certificate by which the API server is known. Raises OSError."""
        return self.access.ca_file.read_text() if self.access.ca_file else self.access.ca_data


@dataclass(slots=True)
class _Account:
    """The token of one pod."""

    namespace: str
    pod: str
    uid: str
    name: str
    due: float
    written: bool = False
    given_up: bool = False
    problem: str = ""


class AccountFiles:
    """The files of a node's pods. All but :meth:`run` and :meth:`renew` never wait.

    ``wake`` is called, from the thread of :meth:`run`, when the answer of :meth:`obtain` has
    changed for some pod; ``now``: a monotonic clock in seconds.
    """

    def __init__(
        self,
        source: Source,
        ask: Ask,
        log: logs.Log,
        *,
        wake: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._ask, self._log = source, ask, log
        self._wake, self._now = wake, now
        self._accounts: dict[str, _Account] = {}
        self._changed = threading.Condition()  # guards accounts and files
        self._backoff = RetryBackoff(MOST_SECONDS)
        self._fresh = self._stopped = False

    def obtain(self, pod: Pod) -> str | None:
        """Return None if a pod has its files, or needs none; else why not yet (empty: asked).

        From the first call on, until :meth:`forget`, its token is kept valid.
        """
        if not _has_token(pod):
            return None
        meta = pod.metadata
        with self._changed:
            account = self._accounts.get(meta.uid)
            if account is None:
                name = pod.spec.service_account_name
                account = _Account(meta.namespace, meta.name, meta.uid, name, self._now())
                self._accounts[meta.uid] = account
                self._fresh = True
                self._changed.notify_all()
            return None if account.written or account.given_up else account.problem

    def environment(self, pod: Pod) -> Mapping[str, str]:
        """Return the variables by which programs in a pod find API server and files."""
        host, port = self._source.address()
        found = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
        if self._has_files(pod):
            found[SERVICE_ACCOUNT_VARIABLE] = str(self._source.directory / pod.metadata.uid)
        return found

    def mounts(self, pod: Pod) -> Mapping[Path, Path]:
        """Return where programs in a pod find the files, as in Kubernetes.

        Not in pods on the node's network: to make the place they would be given a ``/run`` of
        their own, in which a lock that the machine makes later is not (``xtables.lock``).
        """
        if pod.spec.host_network or not self._has_files(pod):
            return {}
        return {SERVICE_ACCOUNT: self._source.directory / pod.metadata.uid}

    def _has_files(self, pod: Pod) -> bool:
        account = self._accounts.get(pod.metadata.uid)
        return _has_token(pod) and not (account and account.given_up)

    def forget(self, uid: str) -> None:
        """Remove the files of a pod that is over; absent is fine."""
        with self._changed:
            self._accounts.pop(uid, None)
            self._backoff.succeeded(uid)
            shutil.rmtree(self._source.directory / uid, ignore_errors=True)

    def retain(self, uids: Collection[str]) -> None:
        """Remove what a former kubelet left of other pods than these."""
        with contextlib.suppress(FileNotFoundError):
            for path in list(self._source.directory.iterdir()):
                if path.name not in uids:
                    self.forget(path.name)

    def renew(self) -> float | None:
        """Ask for the tokens that are due, each once; return seconds until the next is due."""
        with self._changed:
            self._fresh = False
            due = [one for one in self._accounts.values() if one.due <= self._now()]
        for place, account in enumerate(due):
            try:
                self._renew(account)
            except (errors.ApiError, OSError) as error:
                self._failed([account], account.uid, error)
            except errors.KproxyError as error:  # the way is the same for all
                self._failed(due[place:], _WAY, error)
                break
        with self._changed:
            times = [one.due for one in self._accounts.values() if not one.given_up]
        return max(min(times) - self._now(), 0.0) if times else None

    def run(self) -> None:
        """Keep tokens valid until :meth:`stop`."""
        wait: float | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._fresh, wait)
                if self._stopped:
                    return
            wait = self.renew()

    def stop(self) -> None:
        """Make :meth:`run` return; the files stay, as the pods do."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _renew(self, account: _Account) -> None:
        asked = self._now()
        bound = {"kind": "Pod", "apiVersion": "v1", "name": account.pod, "uid": account.uid}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": self._source.seconds, "boundObjectRef": bound},
        }
        try:
            answer = self._ask(account.namespace, account.name, request)
        except errors.ApiError as error:
            if error.code != _NO_TOKENS:
                raise
            self._give_up(account, error)
            return
        token, seconds = _granted(answer)
        with self._changed:
            if self._accounts.get(account.uid) is not account:
                return  # the pod has gone meanwhile
            self._write(account, token)
            first, account.written = not account.written, True
            account.problem, account.due = "", asked + RENEW_AT * seconds
        self._backoff.succeeded(account.uid)
        self._backoff.succeeded(_WAY)
        self._log.debug("token renewed", **_words(account), seconds=seconds)
        if first:
            self._wake()

    def _write(self, account: _Account, token: str) -> None:
        directory = self._source.directory / account.uid
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The token last: who finds it finds the rest.
        _replace(directory / "ca.crt", self._source.authority())
        _replace(directory / "namespace", account.namespace)
        _replace(directory / "token", token)

    def _failed(self, accounts: Collection[_Account], key: str, error: Exception) -> None:
        wait = self._backoff.failed(key)
        self._log.warning("no token", **_words(next(iter(accounts))), error=str(error))
        for account in accounts:
            account.due = self._now() + wait
            account.problem = f"no token of service account {account.name!r}: {error}"
        self._wake()

    def _give_up(self, account: _Account, error: errors.ApiError) -> None:
        account.given_up, account.due = True, float("inf")
        self._log.warning("pod goes without a token", **_words(account), error=str(error))
        self._wake()


def _has_token(pod: Pod) -> bool:
    """Return whether a pod is to have a token; static pods have no service account."""
    wanted = pod.spec.automount_service_account_token is not False
    return wanted and bool(pod.spec.service_account_name)


def _granted(answer: Object) -> tuple[str, float]:
    """Return a token, and for how many seconds it is valid."""
    try:
        return str(answer["status"]["token"]), float(answer["spec"]["expirationSeconds"])
    except (KeyError, TypeError, ValueError):
        raise errors.ApiError(500, "InternalError", "the answer is no TokenRequest") from None


def _replace(path: Path, text: str) -> None:
    """Write a file for its owner only; who reads it sees the old text or the new one."""
    partial = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()  # of a kubelet that was killed
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def _words(account: _Account) -> dict[str, object]:
    return {"pod": f"{account.namespace}/{account.pod}", "uid": account.uid}
