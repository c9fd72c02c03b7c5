"""Many watches in one process, which tell how late they hear: for ``kproxy bench controlplane``.

    python -m kproxy.lab.watchers --kubeconfig FILE --count 100 --events 200

Watches the ConfigMaps of the namespace ``default``. Each write names its number and the time at
which it was begun (the annotation ``kproxy/sent``, nanoseconds of the monotonic clock). Prints
``{"event": "ready"}`` when all watches are open and, when each has heard of ``--events`` writes,
``{"event": "done", "heard": …, "late_ms": [sorted]}``.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from kproxy.api import catalog
from kproxy.api.configuration import ConfigMap
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.rest import Rest

NAMESPACE = "default"
SENT = "kproxy/sent"


class Watchers:
    """Threads, each with a watch of its own."""

    def __init__(self, kubeconfig: Path, events: int) -> None:
        self._access = load_kubeconfig(kubeconfig)
        self._events = events
        self._lock = threading.Lock()
        self.late_ns: list[int] = []

    def run(self, count: int) -> None:
        """Open the watches, say so, and listen until all have heard of everything."""
        version = self._version()
        opened = threading.Barrier(count + 1)
        threads = [
            threading.Thread(target=self._listen, args=(version, opened)) for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        opened.wait()
        print(json.dumps({"event": "ready"}), flush=True)
        for thread in threads:
            thread.join()

    def _version(self) -> str:
        with Rest(self._access, agent="watchers") as client:
            found = json.loads(client.request("GET", catalog.CONFIG_MAP.path(NAMESPACE)))
        return str(found["metadata"]["resourceVersion"])

    def _listen(self, version: str, opened: threading.Barrier) -> None:
        late: list[int] = []
        with (
            Rest(self._access, agent="watchers") as client,
            client.watch(ConfigMap, NAMESPACE, resource_version=version) as watch,
        ):
            opened.wait()
            for line in watch:
                # Not decoded further: what the client makes of it is not the question.
                metadata = json.loads(line)["object"].get("metadata", {})
                sent = (metadata.get("annotations") or {}).get(SENT)
                if sent is not None:
                    late.append(time.monotonic_ns() - int(sent))
                if len(late) == self._events:
                    break
        with self._lock:
            self.late_ns += late


def main(arguments: list[str]) -> int:
    """Run as a process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="kproxy.lab.watchers", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--events", type=int, required=True)
    given = parser.parse_args(arguments)
    watchers = Watchers(given.kubeconfig, given.events)
    watchers.run(given.count)
    late = sorted(round(one / 1e6, 3) for one in watchers.late_ns)
    print(json.dumps({"event": "done", "heard": len(late), "late_ms": late}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
