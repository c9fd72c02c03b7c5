"""A storage in an etcd cluster (3.4 or newer), over its JSON gateway.

A commit is one transaction: compare the ``mod_revision`` of the keys, then write them all. A try
whose outcome nobody knows (a leader died meanwhile) is repeated: it cannot be done twice, as its
comparisons fail the second time; then the keys themselves tell whether it was ours. It is
Unavailable when no member answers for ``patience`` seconds, or when the keys cannot tell because
somebody else has written them.

Members should forget old revisions by themselves: ``--auto-compaction-mode=revision
--auto-compaction-retention=10000`` (see :mod:`etcdmember`).
"""

import base64
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from . import base
from .etcdgateway import Gateway, Message, Rejected, b64

PATIENCE_SECONDS = 8.0
"""Longer than an election: 1 to 2 seconds with etcd's defaults, and a member may be silent."""

SILENCE_SECONDS = 2.0
"""If the cluster has commits that a watch is not told within this time, its member is cut off."""

_PAGE = 500


class EtcdStorage:
    """Keys and values in an etcd cluster. ``endpoints`` and TLS: see :class:`Gateway`."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        authority: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._gateway = Gateway(
            endpoints, authority=authority, certificate=certificate, key=key, patience=patience
        )
        self._heard = threading.Condition()
        self._latest = 0

    def get(self, key: str) -> tuple[base.Entry | None, int]:
        """See :class:`base.Storage`."""
        answer = self._call("/v3/kv/range", {"key": b64(key)})
        return _first(answer), _revision(answer)

    def list(self, prefix: str) -> tuple[Sequence[base.Entry], int]:
        """See :class:`base.Storage`."""
        while True:
            try:
                return self._list(prefix)
            except Rejected as error:
                # It took so long that its revision was compacted: a newer one, then.
                if "has been compacted" not in str(error):
                    raise

    def _list(self, prefix: str) -> tuple[Sequence[base.Entry], int]:
        found: list[base.Entry] = []
        question: Message = {**_range(prefix), "limit": _PAGE}
        while True:
            answer = self._call("/v3/kv/range", question)
            # All pages are of the revision of the first one.
            revision: int = question.setdefault("revision", _revision(answer))
            found += [_entry(one) for one in answer.get("kvs", ())]
            if not answer.get("more"):
                return found, revision
            question["key"] = b64(found[-1].key + "\0")

    def revision(self) -> int:
        """See :class:`base.Storage`."""
        return _revision(self._call("/v3/kv/range", {"key": b64("\0"), "count_only": True}))

    def commit(self, writes: Sequence[base.Write]) -> int:
        """See :class:`base.Storage`."""
        base.check(writes)
        checked = [write for write in writes if write.expected is not None]
        message = {
            "compare": [_compare(write) for write in checked],
            "success": [_operation(write) for write in writes if not write.only_checked],
            "failure": [{"request_range": {"key": b64(write.key)}} for write in writes],
        }
        answer, doubt = self._gateway.call("/v3/kv/txn", message, idempotent=False)
        self._note(_revision(answer))
        if answer.get("succeeded"):
            return _revision(answer)
        found = [_first(one["response_range"]) for one in answer["responses"]]
        if doubt:
            revision = _already_done(writes, found)
            if revision is None:
                # Refused for a change of somebody else's: nobody knows whether before it, or
                # after this was done. "Mismatch" would make the caller do it once more.
                raise base.Unavailable("etcd: perhaps done, then changed", unknown=True)
            return revision or _revision(answer)
        for write, entry in zip(writes, found, strict=True):
            is_at = base.ABSENT if entry is None else entry.revision
            if write.expected not in (None, is_at):
                raise base.Mismatch(write.key, entry)
        raise base.Unavailable("etcd: a commit was refused for no reason", unknown=True)

    def watch(self, prefix: str, since: int) -> "EtcdWatch":
        """See :class:`base.Storage`."""
        return EtcdWatch(self._gateway, self._heard, self.latest, prefix, since)

    def compact(self, revision: int) -> None:
        """See :class:`base.Storage`."""
        try:
            self._call("/v3/kv/compaction", {"revision": revision, "physical": False})
        except Rejected as error:
            if "has been compacted" not in str(error):
                raise

    def close(self) -> None:
        """See :class:`base.Storage`."""
        self._gateway.close()

    def latest(self) -> int:
        """Return the newest revision that any answer told."""
        return self._latest

    def _call(self, path: str, message: Message) -> Message:
        answer, _ = self._gateway.call(path, message)
        self._note(_revision(answer))
        return answer

    def _note(self, revision: int) -> None:
        if revision > self._latest:
            with self._heard:
                self._latest = max(revision, self._latest)
                self._heard.notify_all()


class EtcdWatch:
    """See :class:`base.Watch`. A thread reads from the connection, as fast as :meth:`next` takes.

    The whole store is watched whatever the prefix: so every revision is heard of, and which one
    has been reached is known without asking for progress (whose answer may overtake events:
    etcd issue 15220).
    """

    def __init__(
        self,
        gateway: Gateway,
        heard: threading.Condition,
        latest: Callable[[], int],
        prefix: str,
        since: int,
    ) -> None:
        self._gateway = gateway
        self._heard = heard
        self._latest = latest
        self._prefix = prefix
        self._reached = since
        self._batches: deque[tuple[Sequence[base.Change], int]] = deque()
        self._failure: Exception | None = None
        self._closed = False
        request = {"create_request": {**_EVERYTHING, "start_revision": since + 1, "prev_kv": True}}
        self._member, self._connection, self._lines = gateway.stream("/v3/watch", request)
        threading.Thread(target=self._read, name="etcd watch", daemon=True).start()

    def next(self, timeout: float | None) -> tuple[Sequence[base.Change], int]:
        """See :class:`base.Watch`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        behind: float | None = None  # since when the cluster is known to be further
        with self._heard:
            while not self._closed:
                while self._batches:
                    changes, self._reached = self._batches.popleft()
                    behind = None
                    self._heard.notify_all()
                    chosen = [one for one in changes if one.key.startswith(self._prefix)]
                    if chosen:
                        return chosen, self._reached
                if self._failure is not None:
                    raise self._failure
                now = time.monotonic()
                behind = (behind or now) if self._latest() > self._reached else None
                if behind is not None and now >= behind + SILENCE_SECONDS:
                    self._gateway.skip(self._member)
                    raise base.Unavailable("etcd: a watch is not told what has changed")
                if deadline is not None and now >= deadline:
                    break
                ends = [deadline, None if behind is None else behind + SILENCE_SECONDS]
                end = min((one for one in ends if one is not None), default=None)
                self._heard.wait(None if end is None else end - now)
            return [], self._reached

    def close(self) -> None:
        """See :class:`base.Watch`."""
        with self._heard:
            self._closed = True
            self._heard.notify_all()
        self._connection.abort()

    def _read(self) -> None:
        """Read until the connection ends; then say why. Runs in a thread of its own."""
        failure: Exception = base.Unavailable("etcd: a watch has ended")
        try:
            for line in self._lines:
                batch = self._batch(line)
                with self._heard:
                    # Whoever does not take what comes lets the member keep it.
                    self._heard.wait_for(lambda: self._closed or len(self._batches) < _PAGE)
                    if batch is not None:
                        self._batches.append(batch)
                    self._heard.notify_all()
                if self._closed:
                    break
        except OSError as error:
            failure = base.Unavailable(f"etcd: a watch has ended: {error}")
        except (base.Compacted, base.Unavailable) as error:
            failure = error
        finally:
            self._connection.close()
        with self._heard:
            self._failure = failure
            self._heard.notify_all()

    def _batch(self, line: bytes) -> tuple[Sequence[base.Change], int] | None:
        try:
            message = _decode(line)
            result = message.get("result")
            if result is None:
                raise base.Unavailable(f"etcd: a watch has ended: {message.get('error')}")
            compacted = int(result.get("compact_revision", 0))
            if compacted:
                raise base.Compacted(self._reached, compacted)
            if result.get("canceled"):
                reason = result.get("cancel_reason", "canceled")
                raise base.Unavailable(f"etcd: a watch has ended: {reason}")
            changes = [_change(event) for event in result.get("events", ())]
        except (msgspec.DecodeError, KeyError, ValueError, AttributeError, TypeError) as error:
            raise base.Unavailable(f"etcd: a watch's answer cannot be read: {error!r}") from None
        return (changes, changes[-1].revision) if changes else None


_decode = msgspec.json.Decoder().decode

_EVERYTHING: Message = {"key": b64("\0"), "range_end": b64("\0")}


def _range(prefix: str) -> Message:
    if not prefix:
        return dict(_EVERYTHING)
    return {"key": b64(prefix), "range_end": b64(base.prefix_end(prefix))}


def _compare(write: base.Write) -> Message:
    return {
        "key": b64(write.key),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": str(write.expected),
    }


def _operation(write: base.Write) -> Message:
    if write.value is None:
        return {"request_delete_range": {"key": b64(write.key)}}
    return {"request_put": {"key": b64(write.key), "value": b64(write.value)}}


def _already_done(writes: Sequence[base.Write], found: Sequence[base.Entry | None]) -> int | None:
    """Return the revision of a commit if the keys are as it leaves them (0: it only deleted)."""
    revisions = set()
    for write, entry in zip(writes, found, strict=True):
        if write.only_checked:
            continue
        if write.value != (None if entry is None else entry.value):
            return None
        if entry is not None:
            revisions.add(entry.revision)
    return None if len(revisions) > 1 else max(revisions, default=0)


def _revision(answer: Message) -> int:
    try:
        return int(answer["header"]["revision"])
    except (KeyError, ValueError, TypeError):
        raise base.Unavailable("etcd: an answer has no revision", unknown=True) from None


def _first(answer: Message) -> base.Entry | None:
    return next((_entry(one) for one in answer.get("kvs", ())), None)


def _entry(found: Message) -> base.Entry:
    value = base64.b64decode(found.get("value", ""))
    return base.Entry(_key(found), value, int(found["mod_revision"]))


def _key(found: Message) -> str:
    return base64.b64decode(found["key"]).decode("utf-8", "replace")


def _change(event: Message) -> base.Change:
    found = event["kv"]
    revision = int(found["mod_revision"])
    before = event.get("prev_kv")
    previous = None if before is None else base64.b64decode(before.get("value", ""))
    if event.get("type") == "DELETE":
        return base.Change(_key(found), None, previous, revision)
    if previous is None and found.get("create_revision") != found["mod_revision"]:
        # What was there has been forgotten in the meantime.
        raise base.Compacted(revision - 1, revision)
    value = base64.b64decode(found.get("value", ""))
    return base.Change(_key(found), value, previous, revision)
