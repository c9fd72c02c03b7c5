"""Watches all pods and their owners, and logs every change: the history that is judged in the end.

    python -m kproxy.lab.chain.history --kubeconfig FILE

One event ``seen`` for each change of a pod or a ReplicaSet; see ``duplicates``. Goes on from where
it was when an API server dies. SIGTERM ends it.
"""

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog
from kproxy.client.cache import CachedObjects
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.rest import Rest
from kproxy.controlplane.controllers import owned
from kproxy.lab.chain.duplicates import SEEN

Object = dict[str, Any]


def of_pod(pod: Object, *, gone: bool) -> dict[str, Any] | None:
    """Return what is to be logged of a pod; None: nobody owns it."""
    owner = next(iter(pod["metadata"].get("ownerReferences") or []), None)
    if owner is None:
        return None
    sole = owner["kind"] == catalog.DAEMON_SET.name
    place = pod["spec"].get("nodeName", "") if sole else ""
    if sole and not place:
        return None
    return {
        "uid": owned.uid(pod),
        "name": owned.key_of(pod),
        "owner": f"{owner['uid']}{place}",
        "active": not gone and owned.active(pod),
        "version": int(pod["metadata"]["resourceVersion"]),
        "sole": sole,
    }


def of_replica_set(found: Object, *, gone: bool) -> dict[str, Any] | None:
    """Return what is to be logged of a ReplicaSet; None: it is gone."""
    if gone:
        return None
    uid = owned.uid(found)
    limit = int(found["spec"].get("replicas", 1))
    return {
        "uid": uid,
        "name": owned.key_of(found),
        "owner": uid,
        "active": True,
        "version": int(found["metadata"]["resourceVersion"]),
        "limit": limit,
    }


def _watch(log: logs.Log, tell: Callable[..., dict[str, Any] | None]) -> Callable[..., None]:
    def heard(old: Object | None, new: Object | None) -> None:
        one = new or old
        said = None if one is None else tell(one, gone=new is None)
        if said is not None:
            log.info(SEEN, **said)

    return heard


def main(arguments: list[str]) -> int:
    """Run as a process; ends by a signal only."""
    parser = argparse.ArgumentParser(prog="kproxy.lab.chain.history", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    given = parser.parse_args(arguments)
    log = logs.Log("history")

    def problem(error: errors.KproxyError) -> None:
        log.info("problem", error=str(error))

    rest = Rest(load_kubeconfig(given.kubeconfig), agent="history")
    cache = CachedObjects(rest, (catalog.POD, catalog.REPLICA_SET), on_problem=problem)
    cache.on_change(catalog.REPLICA_SET, _watch(log, of_replica_set))
    cache.on_change(catalog.POD, _watch(log, of_pod))
    cache.start()
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
