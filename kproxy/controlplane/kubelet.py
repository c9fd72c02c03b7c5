"""The node's supervisor (kubelet's part): runs the pods that are assigned to its node.

A :class:`Kubelet` is told of pods by :meth:`~Kubelet.replace`, :meth:`~Kubelet.changed` and
:meth:`~Kubelet.deleted`, works in :meth:`~Kubelet.step`, and leaves its reports in an outbox;
:meth:`~Kubelet.run` is the thin loop around, which sleeps until a pod changes, a container ends or
something is due. A kubelet that is killed leaves the containers running; its successor adopts
them.
"""

import math
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable

from kproxy import logs
from kproxy.api import meta
from kproxy.api.pods import Pod

from .cluster import Cluster
from .outbox import Outbox
from .podworker import PodWorker, Stage
from .runtime import Exit, PodRuntime
from .store import timestamp


class Kubelet:
    """Supervises the pods of one node.

    ``host_ip``: the node's address, reported with every pod; ``now``: a monotonic clock in
    seconds; ``wall``: the clock of timestamps. All methods but :meth:`post` and :meth:`stop`
    belong to one thread.
    """

    def __init__(
        self,
        node_name: str,
        cluster: Cluster,
        runtime: PodRuntime,
        *,
        host_ip: str = "",
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        log: logs.Log | None = None,
    ) -> None:
        self.node_name = node_name
        self.log = log or logs.Log("kubelet")
        self.outbox = Outbox(cluster, self.log)
        self._runtime = runtime
        self._host_ip = host_ip
        self._now = now
        self._today = lambda: timestamp(wall())
        self._workers: dict[str, PodWorker] = {}
        self._leaving: dict[str, PodWorker] = {}
        self._leaving_due: dict[str, float] = {}
        self._adopted = False
        self._posted: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopped = False

    def replace(self, pods: Iterable[Pod]) -> None:
        """Take the whole list of pods: others are removed, what runs already is adopted."""
        mine = {pod.metadata.uid: pod for pod in pods if pod.spec.node_name == self.node_name}
        if not self._adopted:
            self._adopt(mine)
        for uid in [uid for uid in self._workers if uid not in mine]:
            self._remove(uid)
        for pod in mine.values():
            self.changed(pod)

    def changed(self, pod: Pod) -> None:
        """Take a new pod, or a new version of one."""
        if pod.spec.node_name != self.node_name:
            return
        worker = self._workers.get(pod.metadata.uid)
        if worker is None:
            self._workers[pod.metadata.uid] = self._worker(pod)
            return
        worker.pod = pod
        worker.shorten_grace(self._now())

    def deleted(self, uid: str) -> None:
        """Remove a pod whose object is gone, without any grace."""
        if uid in self._workers:
            self._remove(uid)

    def step(self) -> float | None:
        """Do everything that is due; return the seconds until the next thing, None: no timer."""
        while self._posted:
            self._posted.popleft()()
        now = self._now()
        for end in self._runtime.exits():
            self._exited(end, now)
        times = [self._advance(worker, now) for worker in list(self._workers.values())]
        times += [self._leave(uid, now) for uid in list(self._leaving)]
        due = [moment for moment in times if moment is not None]
        return max(min(due) - self._now(), 0.0) if due else None

    def post(self, action: Callable[[], None]) -> None:
        """Have an action done by the loop's thread, soon; may be called from any thread."""
        self._posted.append(action)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Make :meth:`run` return; the containers go on."""
        self.post(self._stop)

    def run(self) -> None:
        """Supervise until :meth:`stop`."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._runtime.fileno(), select.POLLIN)
        while True:
            wait = self.step()
            if self._stopped:
                return
            for descriptor, _ in poll.poll(None if wait is None else math.ceil(wait * 1000)):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)

    def close(self) -> None:
        """Free what :meth:`run` used."""
        os.close(self._wake)

    def _stop(self) -> None:
        self._stopped = True

    def _worker(self, pod: Pod) -> PodWorker:
        return PodWorker(pod, self._runtime, self.log, host_ip=self._host_ip, today=self._today)

    def _adopt(self, pods: dict[str, Pod]) -> None:
        """Meet what a former kubelet left: take over what is wanted, remove the rest."""
        self._adopted = True
        now = self._now()
        found = {sandbox.uid: (sandbox, running) for sandbox, running in self._runtime.list()}
        for uid, (sandbox, running) in found.items():
            pod = pods.get(uid) or Pod(metadata=meta.ObjectMeta(uid=uid))
            worker = self._workers[uid] = self._worker(pod)
            worker.adopt(sandbox, running, now)
            if uid not in pods:
                self._remove(uid)
        for uid, pod in pods.items():
            if uid not in found:
                worker = self._workers[uid] = self._worker(pod)
                if worker.lost_before():
                    worker.fail("SandboxLost", "its sandbox was gone when the kubelet started")

    def _exited(self, end: Exit, now: float) -> None:
        uid = end.container.uid
        worker = self._workers.get(uid) or self._leaving.get(uid)
        pod = worker.pod.metadata if worker else None
        self.log.info(
            "container exited",
            pod=f"{pod.namespace}/{pod.name}" if pod else "",
            uid=uid,
            container=end.container.name,
            pid=end.container.pid,
            start_time=end.container.start_time,
            code=end.code,
        )
        if worker is not None:
            worker.exited(end, now)
            if worker.stage is Stage.FAILED:
                self._report(worker)  # before its remains are removed, which takes a while

    def _report(self, worker: PodWorker) -> None:
        report = worker.report()
        if report is not None:
            self.outbox.put(report)

    def _advance(self, worker: PodWorker, now: float) -> float | None:
        due = worker.advance(now)
        self._report(worker)
        if worker.stage is Stage.GONE:
            self._workers.pop(worker.uid, None)
        return due

    def _remove(self, uid: str) -> None:
        self._leaving[uid] = self._workers.pop(uid)
        self._leaving_due[uid] = 0.0

    def _leave(self, uid: str, now: float) -> float | None:
        """Remove what a pod without an object left; try again later if it cannot be."""
        if now < self._leaving_due[uid]:
            return self._leaving_due[uid]
        due = self._leaving[uid].gone(now)
        if due is None:
            del self._leaving[uid], self._leaving_due[uid]
        else:
            self._leaving_due[uid] = due
        return due
