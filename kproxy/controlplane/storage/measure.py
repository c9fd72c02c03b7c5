"""How fast a storage is: commits per second, and how long until a watch tells of one.

For ``kproxy bench controlplane``. Meaningful under the real clock only: in virtual time computing
takes no time.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import base

VALUE_BYTES = 1500
"""About the size of a small pod in JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Results for one storage. Times are in seconds."""

    writers: int
    commits_per_s: float
    commit_s: tuple[float, ...]
    """How long each commit took, sorted."""
    watch_s: tuple[float, ...]
    """From each commit's return to its arrival at a watch of another client, sorted; a change may
    arrive before the commit returns, which counts as 0."""
    get_s: float
    """Of one read, the mean of as many as there were commits."""


def measure(
    open_storage: Callable[[], base.Storage], *, commits: int, writers: int = 1
) -> Measured:
    """Write ``commits`` new keys below ``/measure/``, read them, delete them.

    Each of the writers, and the watch, has a client of its own. Raises Unavailable.
    """
    arrived: dict[str, float] = {}
    returned: dict[str, float] = {}
    took: list[float] = []
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(contextlib.closing(open_storage())) for _ in range(writers + 1)
        ]
        watch = clients[0].watch("/measure/", clients[0].revision())
        watcher = threading.Thread(target=_listen, args=(watch, commits, arrived))
        watcher.start()
        elapsed = _write_all(clients[1:], commits, returned, took)
        if len(returned) < commits:
            watch.close()
            watcher.join()
            raise base.Unavailable(f"only {len(returned)} of {commits} commits were acknowledged")
        watcher.join()
        watch.close()
        begin = time.perf_counter()
        for key in returned:
            clients[0].get(key)
        get_s = (time.perf_counter() - begin) / commits
        for key in returned:
            clients[0].commit([base.Write(key, None)])
    return Measured(
        writers=writers,
        commits_per_s=commits / elapsed,
        commit_s=tuple(sorted(took)),
        watch_s=tuple(sorted(max(arrived[key] - at, 0.0) for key, at in returned.items())),
        get_s=get_s,
    )


def _write_all(
    clients: Sequence[base.Storage], commits: int, returned: dict[str, float], took: list[float]
) -> float:
    """Let all clients write at once; return how long it took."""
    threads = [
        threading.Thread(
            target=_write, args=(client, range(number, commits, len(clients)), returned, took)
        )
        for number, client in enumerate(clients)
    ]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def _write(
    client: base.Storage, numbers: range, returned: dict[str, float], took: list[float]
) -> None:
    value = b"x" * VALUE_BYTES
    for number in numbers:
        key = f"/measure/{number}"
        begin = time.perf_counter()
        try:
            client.commit([base.Write(key, value, base.ABSENT)])
        except (base.Unavailable, base.Mismatch):
            return
        returned[key] = time.perf_counter()
        took.append(returned[key] - begin)


def _listen(watch: base.Watch, commits: int, arrived: dict[str, float]) -> None:
    while len(arrived) < commits:
        try:
            changes, _ = watch.next(None)
        except (base.Unavailable, base.Compacted):
            return
        if not changes:  # closed
            return
        now = time.perf_counter()
        for change in changes:
            arrived[change.key] = now
