"""The controller manager: the reconcile loops of a cluster; of several replicas one works.

    python -m kproxy.controlplane.manager --kubeconfig FILE [--leader-elect=false] …

Keeps nothing of its own: killed and started again, or replaced by another replica, it goes on from
what the API says. Each controller works in a thread, on keys that informers queue for it; a key
that fails comes back after a back-off. Which there are: ``controllers/registry.py`` and
``clusterwide.py``.
"""

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kproxy import costs, errors, logs
from kproxy.api import kinds
from kproxy.client import cache, rest, watchmetrics
from kproxy.client.objects import ObjectClient

from . import component
from .controllers import clusterwide, registry, times
from .eventrecorder import Recorder
from .queuemetrics import ManagerMetrics
from .workqueue import WorkQueue

Object = dict[str, Any]

NAME = "kube-controller-manager"
PORT = 10257
ALL = (*registry.ALL, *clusterwide.ALL)


class Loop:
    """A controller, the queue of its keys and the thread that works on them."""

    def __init__(self, name: str, log: logs.Log, queue: WorkQueue) -> None:
        self.queue = queue
        self._log = log
        self.name = name
        self._thread: threading.Thread | None = None

    def start(self, controller: registry.Controller) -> None:
        """Begin to work."""
        thread = threading.Thread(
            target=self._run, args=(controller,), name=self.name, daemon=True
        )
        thread.start()
        # Only now: somebody may be about to join it, and one that has not started cannot be.
        self._thread = thread

    def join(self) -> None:
        """Wait for the end of the work; its queue must have been stopped."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, controller: registry.Controller) -> None:
        while (key := self.queue.get()) is not None:
            self._work(controller, key)
            self.queue.done()

    def _work(self, controller: registry.Controller, key: str) -> None:
        try:
            again = controller.reconcile(key)
        except errors.Conflict as error:
            self._log.debug("conflict", loop=self.name, key=key, error=str(error))
            self.queue.retry(key)
        except errors.KproxyError as error:
            wait = self.queue.retry(key)
            self._log.warning(
                "reconcile failed", loop=self.name, key=key, error=str(error), retry_s=wait
            )
        except Exception as error:
            # A bug that one object brings to light must not stop the others.
            wait = self.queue.retry(key)
            self._log.error(
                "reconcile broke", loop=self.name, key=key, error=repr(error), retry_s=wait
            )
        else:
            self.queue.succeeded(key)
            if again is not None:
                self.queue.add_after(key, again)


class Manager:
    """All controllers of a cluster over one cache of its objects. Can be started once."""

    def __init__(
        self,
        client: rest.Rest,
        log: logs.Log,
        cost: costs.Costs = costs.FREE,
        *,
        guard: Callable[[], None] = lambda: None,
        metrics: ManagerMetrics | None = None,
        controllers: Sequence[registry.Registration] = ALL,
        name: str = NAME,
        waits: times.Times = times.DEFAULT,
    ) -> None:
        self._client = client
        self._log = log
        self._stopped = threading.Event()
        self._ready = threading.Event()
        metrics = metrics or ManagerMetrics()
        cached: dict[kinds.Kind, None] = {}
        for one in controllers:
            cached |= dict.fromkeys((*one.watches, *one.reads))
        self._cluster = cache.CachedObjects(client, cached, guard=guard, on_problem=self._problem)
        self._events_client = client.derive()
        sink = ObjectClient(self._events_client, guard=guard)
        self._events = Recorder(sink, name, log)
        self._work: list[tuple[Loop, registry.Controller]] = []
        for one in controllers:
            self._add(one, cost, metrics, waits)
        working = {loop.name: loop.queue.working_for for loop, _ in self._work}
        metrics.working(working)
        metrics.registry.collect_by(lambda: watchmetrics.families(self._cluster.informers))

    def start(self) -> None:
        """Begin to work, in threads; nothing is written before everything has been listed."""
        self._cluster.start()
        # A thread, because the API server may be away for long.
        threading.Thread(target=self._begin, name="begin", daemon=True).start()

    def stop(self) -> None:
        """End all work, also requests in hand; the client is closed then."""
        self._stopped.set()
        self._cluster.stop()
        for loop, _ in self._work:
            loop.queue.stop()
        self._client.close()
        for loop, _ in self._work:
            loop.join()
        self._events_client.close()
        self._events.stop()

    def ready(self) -> bool:
        """Return whether everything has been listed, so that work has begun."""
        return self._ready.is_set()

    def _add(
        self,
        one: registry.Registration,
        cost: costs.Costs,
        metrics: ManagerMetrics,
        waits: times.Times,
    ) -> None:
        loop = Loop(one.name, self._log, WorkQueue(metrics.queue(one.name)))
        context = registry.Context(
            cluster=self._cluster,
            known=self._cluster.known,
            log=self._log,
            events=self._events,
            enqueue=loop.queue.add,
            cost=cost,
            times=waits,
        )
        controller = one.make(context)
        for kind, mapper in one.watches.items():
            self._cluster.on_change(kind, _waker(loop.queue, mapper, context, controller))
        self._work.append((loop, controller))

    def _begin(self) -> None:
        self._cluster.wait_synced()
        if self._stopped.is_set():
            return
        self._log.info("synced")
        for loop, controller in self._work:
            loop.start(controller)
        self._ready.set()

    def _problem(self, error: errors.KproxyError) -> None:
        self._log.warning("API server", error=str(error))


def _waker(
    queue: WorkQueue,
    mapper: registry.Mapper,
    context: registry.Context,
    controller: registry.Controller,
) -> cache.Handler:
    def wake(old: Object | None, new: Object | None) -> None:
        for key in mapper(context, controller, old, new):
            queue.add(key)

    return wake


def main(arguments: Sequence[str] | None = None) -> int:
    """Work while this is the leader, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="kproxy.controlplane.manager")
    component.add_options(parser, lease=NAME, port=PORT)
    parser.add_argument(
        "--controllers",
        type=_chosen,
        default=ALL,
        metavar="LIST",
        help=f"of {', '.join(one.name for one in ALL)}; *: all; -NAME: but for that one",
    )
    times.add_options(parser)
    options = parser.parse_args(arguments)
    log = logs.Log("manager")

    def make(parts: component.Parts) -> Manager:
        cost = costs.of(costs.MANAGER, log)
        return Manager(
            parts.client,
            log,
            cost,
            guard=parts.guard,
            metrics=parts.metrics,
            controllers=options.controllers,
            waits=times.of(options),
        )

    return component.run(options, log, "kproxy-manager", make)


def _chosen(text: str) -> tuple[registry.Registration, ...]:
    """Return the controllers that a list of names, ``*`` and ``-name`` chooses."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    known = {one.name for one in ALL}
    unknown = [word for word in words if word != "*" and word.removeprefix("-") not in known]
    if unknown:
        names = ", ".join(sorted(known))
        raise argparse.ArgumentTypeError(f"there is no controller {unknown[0]!r}: use {names}")
    return tuple(
        one for one in ALL if f"-{one.name}" not in words and ("*" in words or one.name in words)
    )


if __name__ == "__main__":
    sys.exit(main())
