"""The action ``restart-proxy``: a new process for a node's proxy that hangs or is blind.

By the API: its pod is deleted, its DaemonSet makes another one. Where no controller could do that
now, in place: the process is killed on the node, and the kubelet starts the container again. Where
neither is possible nothing is done, because nobody would bring the proxy back.

Costs no packet by itself: the kernel keeps all rules. Until the new process has synced, changes of
endpoints wait, as they did already.
"""

import time
from collections.abc import Callable

from kproxy.api import catalog
from kproxy.errors import KproxyError, UsageError
from kproxy.monitoring.nodecare import asking
from kproxy.monitoring.nodecare.seen import RESTART, Look, Trouble
from kproxy.monitoring.remediation.seams import (
    Limits,
    NodeUnreachable,
    Outcome,
    Target,
    Tools,
    Verdict,
)

from . import cluster
from .cluster import ClusterFacts, Object, Proxies
from .nodecommands import LOOK_WITHIN_S, NodeCommands

GRACE_S = 0
"""A process that is stopped hears no SIGTERM: any grace is time in which nobody syncs."""

HEALTHZ_PORT = 10256
SLACK_S = 1.0
"""Clocks of two machines, and ticks, may differ by so much."""

Ask = Callable[[tuple[str, int], str], asking.Answer]


class RestartProxy:
    """See the module."""

    name = RESTART
    summary = "Replace the node's proxy: delete its pod, or kill its process where nobody could."
    needs = frozenset({"node"})
    limits = Limits(runs=3, check_within=LOOK_WITHIN_S + 6, run_within=40.0, verify_within=120.0)

    def __init__(
        self, tools: Tools, *, ask: Ask = asking.ask, wall: Callable[[], float] = time.time
    ) -> None:
        if tools.rest is None:
            raise UsageError(
                f"{RESTART} needs an API server", remedy="give kubeconfig in the file"
            )
        self._facts = ClusterFacts(tools.rest, Proxies.of(tools.options), wall=wall)
        self._commands = NodeCommands(tools.nodes, tools.options)
        self._healthz_port = int(tools.options.get("healthzPort", HEALTHZ_PORT))
        self._grace = int(tools.options.get("graceSeconds", GRACE_S))
        self._ask = ask
        self._wall = wall

    def check(self, target: Target) -> Verdict:
        """Return whether it would help: something is wrong, and somebody makes a new one."""
        node = self._facts.node(target.node)
        if node is None:
            return Verdict(False, f"there is no node {target.node}")
        if not cluster.is_ready(node):
            why = f"node {target.node} is not Ready: its kubelet would start no new proxy"
            return Verdict(False, why)
        wrong = self._wrong(target.node, node)
        if not wrong:
            return Verdict(False, f"the proxy of node {target.node} is healthy")
        why_not, _ = self._way(target.node)
        return Verdict(False, why_not) if why_not else Verdict(True, wrong)

    def run(self, target: Target) -> Outcome:
        """Delete the pod, or kill the process."""
        why_not, pod = self._way(target.node)
        if why_not:
            return Outcome(False, why_not)
        if pod is None:
            try:
                done = self._commands.care(target.node, RESTART, dry_run=False)
            except NodeUnreachable:
                raise
            except KproxyError as error:
                # Who is in the proxy's container ends with it; verification tells.
                return Outcome(True, f"its answer was lost: {error}")
            return Outcome(done.good, done.refused or "; ".join(done.done))
        meta = pod["metadata"]
        self._facts.objects.delete(
            catalog.POD, meta["namespace"], meta["name"], grace=self._grace, uid=meta["uid"]
        )
        return Outcome(True, f"pod {meta['name']} deleted (grace period {self._grace} s)")

    def verify(self, target: Target) -> Verdict:
        """Return whether a process that began after the repair runs and has synced."""
        try:
            found = self._commands.look(target.node)
        except NodeUnreachable as error:
            if self._facts.proxy_pods(target.node):
                return self._verify_from_outside(target, str(error))
            return Verdict(False, "there is no new pod yet")
        since = self._wall() - target.begun + SLACK_S if target.begun else float("inf")
        age, synced = found.proxy.get("age_s"), found.sync.get("last_s")
        if not found.proxy.get("found") or not isinstance(age, float | int):
            return Verdict(False, "no proxy runs yet")
        if age > since:
            return Verdict(False, f"process {found.proxy['pid']} is the old one")
        if found.answers.get("livez") != "200":
            return Verdict(False, f"/livez: {found.answers.get('livez')}")
        if synced is not None and synced > since:
            return Verdict(False, "it has not synced yet")
        if synced is None and found.answers.get("livez") == "200" and "sync" in found.unknown:
            return Verdict(False, f"whether it has synced is not known: {found.unknown['sync']}")
        trouble = _of_restart(found)
        if trouble is not None:
            return Verdict(False, f"{trouble.what}: {trouble.evidence}")
        return Verdict(True, f"process {found.proxy['pid']} is {age:g} s old and has synced")

    def _wrong(self, name: str, node: Object) -> str:
        """Return what is wrong with the proxy, as the node itself says; empty: nothing.

        Where the node cannot be looked at, because its image has no kproxy for one, the proxy's
        health check is asked from here.
        """
        try:
            found = self._commands.look(name)
        except KproxyError as error:
            answer = self._livez(node)
            if answer.code == 200:
                return ""
            return f"/livez: {answer} (and it cannot be looked at: {error})"
        trouble = _of_restart(found) or next(iter(found.troubles), None)
        return f"{trouble.what}: {trouble.evidence}" if trouble is not None else ""

    def _way(self, node: str) -> tuple[str, Object | None]:
        """Return why it is not possible (empty: it is), and the pod to delete; None: in place."""
        pods = self._facts.proxy_pods(node)
        leaving = [pod for pod in pods if pod["metadata"].get("deletionTimestamp")]
        pods = [pod for pod in pods if pod not in leaving]
        if len(pods) > 1:
            return f"node {node} has {len(pods)} pods of the proxy: an update is under way", None
        if not pods:
            word = "is being replaced" if leaving else "has none: its controller must make one"
            return f"the pod of the proxy on node {node} {word}", None
        daemon_set = self._facts.daemon_set_of(pods[0])
        leader = self._facts.leader()
        if daemon_set is not None and leader:
            return "", pods[0]
        lacks = "no controller manager leads" if daemon_set is not None else "no DaemonSet has it"
        try:
            planned = self._commands.care(node, RESTART, dry_run=True)
        except KproxyError as error:
            return f"{lacks}, so a deleted pod would not come back; in place: {error}", None
        if planned.refused:
            return f"{lacks}, so a deleted pod would not come back; {planned.refused}", None
        return "", None

    def _verify_from_outside(self, target: Target, why: str) -> Verdict:
        node = self._facts.node(target.node)
        answer = self._livez(node) if node is not None else asking.Answer(0, "no such node")
        pods = self._facts.proxy_pods(target.node)
        young = [pod for pod in pods if _started(pod) >= target.begun - SLACK_S]
        if answer.code == 200 and young:
            return Verdict(True, f"a new container answers /livez (it cannot be looked at: {why})")
        return Verdict(False, f"/livez: {answer}" if young else "no new container runs yet")

    def _livez(self, node: Object) -> asking.Answer:
        addresses = (node.get("status") or {}).get("addresses") or ()
        for one in addresses:
            if one.get("type") == "InternalIP":
                return self._ask((one["address"], self._healthz_port), "/livez")
        return asking.Answer(0, "the node has no InternalIP")


def _of_restart(found: Look) -> Trouble | None:
    return next((one for one in found.troubles if one.cure == RESTART), None)


def _started(pod: Object) -> float:
    """Return when the newest running container of a pod was started, in seconds since 1970."""
    from kproxy import rfc3339

    found = [
        rfc3339.seconds_of(((one.get("state") or {}).get("running") or {}).get("startedAt"))
        for one in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    return max((at for at in found if at is not None), default=0.0)
