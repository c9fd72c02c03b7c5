"""The node's supervisor (kubelet's part): runs the pods that are assigned to its node.

A :class:`Kubelet` is told of pods by :meth:`~Kubelet.replace`, :meth:`~Kubelet.changed`,
:meth:`~Kubelet.deleted` and :meth:`~Kubelet.replace_static`, works in :meth:`~Kubelet.step`, and
leaves its reports in an outbox; :meth:`~Kubelet.run` is the thin loop around, which sleeps until a
pod changes, a container ends, a probe has an answer or something is due. A kubelet that is killed
leaves the containers running; its successor adopts them.
"""

import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from kproxy import errors, logs
from kproxy.api import meta
from kproxy.api.pods import Pod
from kproxy.rfc3339 import timestamp

from . import staticpods
from .actions import Actions, Performer
from .cluster import Cluster
from .images import Images
from .kubeletmetrics import Census, KubeletMetrics
from .outbox import Outbox
from .podevents import PodEvents
from .podtools import Accounts, NoAccounts, NoSources, Sources, Tools
from .podworker import PodWorker, Stage
from .resolving import ClusterNames
from .runtime import ContainerId, Exit, PodRuntime, Sandbox

T = TypeVar("T")
_NAME_TAKEN_AGAIN = 1.0
_LONGEST_WAIT = 86400.0
"""Then it looks again: ``poll`` takes 24 days at most, and grace periods may be for ever."""


class Kubelet:
    """Supervises the pods of one node.

    ``host_ips``: the node's addresses, reported with every pod; ``now``: a monotonic clock in
    seconds; ``wall``: the clock of timestamps; ``performer``: who does probes and hooks. All
    methods but :meth:`post`, :meth:`ask` and :meth:`stop` belong to one thread.
    """

    def __init__(
        self,
        node_name: str,
        cluster: Cluster,
        runtime: PodRuntime,
        *,
        host_ips: Iterable[str] = (),
        images: Images | None = None,
        performer: Performer | None = None,
        resolving: ClusterNames | None = None,
        accounts: Accounts | None = None,
        sources: Sources | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        log: logs.Log | None = None,
    ) -> None:
        self.node_name = node_name
        self.log = log or logs.Log("kubelet")
        self.outbox = Outbox(cluster, self.log)
        self.metrics, self.runtime = KubeletMetrics(), runtime
        self._now = now
        self._performer = performer or Actions(runtime)
        self._accounts = accounts or NoAccounts()
        self._sources = sources or NoSources()
        self._tools = self._made_tools(
            partial(_today, wall),
            tuple(host_ips),
            resolving or ClusterNames(),
            images or Images(),
        )
        self._workers: dict[str, PodWorker] = {}
        self._leaving: dict[str, tuple[PodWorker, float]] = {}
        self._static: dict[str, staticpods.StaticPod] = {}
        # What a former kubelet left and nobody has claimed yet; None: not looked at yet.
        self._left: dict[str, tuple[Sandbox, Sequence[ContainerId]]] | None = None
        self._settled = self._stopped = False
        self._posted: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    @property
    def workers(self) -> Mapping[str, PodWorker]:
        """Return the pods that run here, by uid."""
        return self._workers

    def replace(self, pods: Iterable[Pod]) -> None:
        """Take the whole list of the API's pods: others are removed, what runs is adopted."""
        mine = {
            pod.metadata.uid: pod
            for pod in pods
            if pod.spec.node_name == self.node_name and not staticpods.is_mirror(pod)
        }
        self._adopt(mine)
        if not self._settled:
            self._settled = True
            self._remove_unclaimed()
            self._accounts.retain(mine)
            for uid in [uid for uid in mine if uid not in self._workers]:
                worker = self._workers[uid] = self._worker(mine[uid])
                if worker.lost_before():
                    worker.fail("SandboxLost", "its sandbox was gone when the kubelet started")
        for uid in [uid for uid in self._workers if uid not in mine and uid not in self._static]:
            self._remove(uid)
        for pod in mine.values():
            self._take(pod)

    def replace_static(self, pods: Iterable[staticpods.StaticPod]) -> None:
        """Take the whole list of static pods; one that is gone ends with grace."""
        wanted = {static.pod.metadata.uid: static for static in pods}
        for uid, gone in self._static.items():
            if uid not in wanted and uid in self._workers:
                self._workers[uid].pod = staticpods.deleted(gone.pod, self._tools.today())
        self._static = {**self._static, **wanted}
        found = {uid: static.pod for uid, static in wanted.items()}
        self._adopt(found)
        for pod in found.values():
            self._take(pod)

    def mirror_changed(self, shown: Pod, *, gone: bool) -> None:
        """Note what has become of a static pod's image in the API.

        ``gone``: it was deleted, or is being deleted; then it is made anew.
        """
        place = shown.metadata.namespace, shown.metadata.name
        for uid, one in self._static.items():
            at = one.pod.metadata
            if (at.namespace, at.name) != place or uid not in self._workers:
                continue
            if gone:
                self._workers[uid].report_again()
            else:
                self._workers[uid].heard(shown)

    def changed(self, pod: Pod) -> None:
        """Take a new pod, or a new version of one."""
        if pod.spec.node_name != self.node_name or staticpods.is_mirror(pod):
            return
        self._take(pod)

    def deleted(self, uid: str) -> None:
        """Remove a pod whose object is gone, without any grace."""
        if uid in self._workers:
            self._remove(uid)

    def step(self) -> float | None:
        """Do everything that is due; return the seconds until the next thing, None: no timer."""
        while self._posted:
            self._posted.popleft()()
        now = self._now()
        for end in self.runtime.exits():
            self._exited(end, now)
        self._performer.advance(now)
        times = [self._advance(worker, now) for worker in list(self._workers.values())]
        times += [self._leave(uid, now) for uid in list(self._leaving)]
        times.append(self._performer.due())
        due = [moment for moment in times if moment is not None]
        after = self._now()
        self.metrics.step.observe(after - now)
        return max(min(due) - after, 0.0) if due else None

    def post(self, action: Callable[[], None]) -> None:
        """Have an action done by the loop's thread, soon; may be called from any thread."""
        self._posted.append(action)
        os.eventfd_write(self._wake, 1)

    def ask(self, question: Callable[[], T], timeout: float = 10.0) -> T:
        """Have a question answered by the loop's thread. Raises what it raises, or KproxyError."""
        answer: list[T] = []
        problem: list[Exception] = []
        done = threading.Event()

        def run() -> None:
            try:
                answer.append(question())
            except Exception as error:  # whatever it is, the pods must not suffer from it
                problem.append(error)
            finally:
                done.set()

        self.post(run)
        if not done.wait(timeout):
            raise errors.KproxyError("the kubelet is too busy to answer")
        if problem:
            raise problem[0]
        return answer[0]

    def stop(self) -> None:
        """Make :meth:`run` return; the containers go on."""
        self.post(self._stop)

    def run(self) -> None:
        """Supervise until :meth:`stop`."""
        poll = select.poll()
        for descriptor in (self._wake, self.runtime.fileno(), self._performer.fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            wait = self.step()
            if self._stopped:
                return
            wait = None if wait is None else math.ceil(min(wait, _LONGEST_WAIT) * 1000)
            for descriptor, _ in poll.poll(wait):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)

    def close(self) -> None:
        """Free what :meth:`run` used."""
        self._performer.close()
        os.close(self._wake)

    def census(self) -> Census:
        """Return how many pods and containers there are."""
        census = Census()
        for worker in self._workers.values():
            worker.count(census)
        return census

    def _made_tools(
        self,
        today: Callable[[], str],
        host_ips: tuple[str, ...],
        resolving: ClusterNames,
        images: Images,
    ) -> Tools:
        return Tools(
            node_name=self.node_name,
            runtime=self.runtime,
            performer=self._performer,
            log=self.log,
            today=today,
            host_ips=host_ips,
            resolving=resolving,
            images=images,
            accounts=self._accounts,
            sources=self._sources,
            events=PodEvents(self.node_name, self.outbox.put_event, now=self._now, today=today),
            metrics=self.metrics,
        )

    def _stop(self) -> None:
        self._stopped = True

    def _worker(self, pod: Pod) -> PodWorker:
        static = self._static.get(pod.metadata.uid)
        mirror = static.mirror if static else None
        return PodWorker(pod, self._tools, now=self._now(), mirror=mirror)

    def _take(self, pod: Pod) -> None:
        worker = self._workers.get(pod.metadata.uid)
        if worker is None:
            self._workers[pod.metadata.uid] = self._worker(pod)
            return
        worker.pod = pod
        worker.heard(pod)
        worker.shorten_grace(self._now())

    def _adopt(self, pods: Mapping[str, Pod]) -> None:
        """Take over what a former kubelet left of these pods."""
        if self._left is None:
            self._left = {box.uid: (box, running) for box, running in self.runtime.list()}
        for uid in [uid for uid in self._left if uid in pods]:
            sandbox, running = self._left.pop(uid)
            worker = self._workers[uid] = self._worker(pods[uid])
            worker.adopt(sandbox, running, self._now())

    def _remove_unclaimed(self) -> None:
        """Remove what a former kubelet left of pods that are wanted no more."""
        left, self._left = self._left or {}, {}
        for uid in left:
            self._workers[uid] = self._worker(Pod(metadata=meta.ObjectMeta(uid=uid)))
            self._remove(uid)

    def _exited(self, end: Exit, now: float) -> None:
        uid = end.container.uid
        if self._left is not None and uid in self._left:
            sandbox, running = self._left[uid]
            self._left[uid] = sandbox, [one for one in running if one != end.container]
        worker = self._workers.get(uid)
        if worker is None and uid in self._leaving:
            worker, _ = self._leaving[uid]
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
        if self._in_the_way(worker):
            return now + _NAME_TAKEN_AGAIN
        due = worker.advance(now)
        self._report(worker)
        if worker.stage is Stage.GONE:
            self._workers.pop(worker.uid, None)
            self._static.pop(worker.uid, None)
        return due

    def _in_the_way(self, worker: PodWorker) -> bool:
        """Return whether a static pod has to wait for the end of the one that it replaces."""
        if worker.uid not in self._static or worker.stage is not Stage.WAITING:
            return False
        at = worker.pod.metadata
        return any(
            (other.pod.metadata.namespace, other.pod.metadata.name) == (at.namespace, at.name)
            for other in self._workers.values()
            if other is not worker and other.stage is not Stage.WAITING
        )

    def _remove(self, uid: str) -> None:
        self._leaving[uid] = (self._workers.pop(uid), 0.0)

    def _leave(self, uid: str, now: float) -> float | None:
        """Remove what a pod without an object left; try again later if it cannot be."""
        worker, due = self._leaving[uid]
        if now < due:
            return due
        again = worker.gone(now)
        if again is None:
            del self._leaving[uid]
        else:
            self._leaving[uid] = (worker, again)
        return again


def _today(wall: Callable[[], float]) -> str:
    return timestamp(wall())
