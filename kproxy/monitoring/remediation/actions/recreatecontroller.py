"""The action ``recreate-controller``: a new process for a part of the control plane that hangs.

Where the part is a pod that a controller would make again, the pod is deleted. A static pod cannot
be restarted by the API: deleting it deletes its mirror only. So elsewhere a command on the host
does it, ``options.componentCommand`` with ``{component}`` and ``{node}`` in it: in a lab its init,
on a real cluster for example ``pkill -KILL -f ^{component}`` with ``nodeAccess.kind: command``.
``options.componentLook`` is a command that tells first whether the part on a host hangs, as
:class:`kproxy.monitoring.nodecare.seen.Care` in JSON; without it that nobody leads is enough.

Costs the work of that part until the new process leads: as long as its start takes, or the term of
the old one's Lease. Nodes and their rules notice nothing.
"""

import shlex
import time
from collections.abc import Callable, Sequence

import msgspec

from kproxy.api import catalog
from kproxy.errors import KproxyError, UsageError
from kproxy.monitoring.nodecare.seen import Care
from kproxy.monitoring.remediation.seams import (
    Finished,
    Limits,
    Outcome,
    Target,
    Tools,
    Verdict,
)

from .cluster import MANAGER, SYSTEM, ClusterFacts, Object, Proxies

COMPONENTS = (MANAGER, "kube-scheduler")
MIRROR = "kubernetes.io/config.mirror"
CONTROL_LABEL = "node-role.kubernetes.io/control-plane"
COMMAND_WITHIN_S = 15.0


class RecreateController:
    """See the module."""

    name = "recreate-controller"
    summary = "Replace a controller manager or scheduler that nobody leads or that is stuck."
    needs: frozenset[str] = frozenset()
    limits = Limits(runs=2, check_within=30.0, run_within=30.0, verify_within=60.0)

    def __init__(self, tools: Tools, *, wall: Callable[[], float] = time.time) -> None:
        if tools.rest is None:
            raise UsageError(f"{self.name} needs an API server", remedy="give kubeconfig")
        self._facts = ClusterFacts(tools.rest, Proxies.of(tools.options), wall=wall)
        self._nodes = tools.nodes
        self._command = shlex.split(tools.options.get("componentCommand", ""))
        self._look = shlex.split(tools.options.get("componentLook", ""))
        hosts = tools.options.get("controlHosts", "")
        self._hosts = [host for host in hosts.split(",") if host]

    def check(self, target: Target) -> Verdict:
        """Return whether nobody leads, or the leader that the alert names is stuck."""
        component = component_of(target)
        leader = self._facts.leader(component)
        if leader and leader.partition("_")[0] != target.node:
            return Verdict(False, f"{component} is led by {leader}, which renews its Lease")
        host, why = self._choose(target, component)
        if not host:
            return Verdict(False, why)
        return Verdict(True, f"{component} on {host}: {why}")

    def run(self, target: Target) -> Outcome:
        """Replace one process, on one host."""
        component = component_of(target)
        host, why = self._choose(target, component)
        if not host:
            return Outcome(False, why)
        pod = self._pod(component, host)
        if pod is not None and not _is_static(pod):
            meta = pod["metadata"]
            self._facts.objects.delete(
                catalog.POD, meta["namespace"], meta["name"], grace=0, uid=meta["uid"]
            )
            return Outcome(True, f"pod {meta['name']} deleted")
        done = self._run(component, host, self._command)
        return Outcome(done.good, done.refused or "; ".join(done.done) or "; ".join(done.left))

    def verify(self, target: Target) -> Verdict:
        """Return whether somebody leads who did not just leave a Lease that has not lapsed yet."""
        component = component_of(target)
        found = self._facts.leadership(component)
        if not self._facts.leader(component) or found.renewed < target.begun:
            return Verdict(False, f"nobody leads {component} yet")
        if target.node and found.acquired < target.begun:
            return Verdict(False, f"{found.holder} leads {component} still")
        return Verdict(True, f"{found.holder} leads {component}")

    def _choose(self, target: Target, component: str) -> tuple[str, str]:
        """Return a host where a new process helps, and why; or no host, and why none."""
        said: list[str] = []
        for host in self._candidates(target, component):
            pod = self._pod(component, host)
            if pod is not None and not _is_static(pod):
                return host, f"pod {pod['metadata']['name']}"
            if not self._command:
                static = "it is a static pod" if pod is not None else "it is no pod"
                return "", (
                    f"{component} on {host}: {static}, which the API cannot restart: give "
                    "options.componentCommand, and a nodeAccess that reaches the host"
                )
            if target.node or not self._look:
                return host, "the alert names it" if target.node else "nobody leads"
            try:
                planned = self._run(component, host, self._look)
            except KproxyError as error:
                said.append(str(error))
                continue
            if planned.found:
                return host, "; ".join(planned.found)
            said.append(planned.refused or f"{component} on {host} runs")
        return "", "; ".join(said) or f"no host is known to run {component}"

    def _candidates(self, target: Target, component: str) -> Sequence[str]:
        if target.node:
            return [target.node]
        known = self._hosts or [
            node["metadata"]["name"]
            for node in self._facts.nodes()
            if CONTROL_LABEL in (node["metadata"].get("labels") or {})
        ]
        # Who had the Lease last is the likeliest to hang.
        holder = self._facts.leadership(component).host
        return sorted(known, key=lambda host: host != holder)

    def _pod(self, component: str, host: str) -> Object | None:
        pods = self._facts.objects.list_objects(catalog.POD, SYSTEM, {"component": component})
        here = [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == host]
        return here[0] if here else None

    def _run(self, component: str, host: str, command: Sequence[str]) -> Care:
        words = [
            word.replace("{component}", component).replace("{node}", host) for word in command
        ]
        return _care(self.name, host, self._nodes.run(host, words, COMMAND_WITHIN_S))


def component_of(target: Target) -> str:
    """Return which part an alert is about: by its labels, else the controller manager."""
    for label in ("name", "component", "job"):
        if target.labels.get(label) in COMPONENTS:
            return target.labels[label]
    return MANAGER


def _care(name: str, host: str, ended: Finished) -> Care:
    """Return what a command came to: as it says itself, else by its exit code."""
    try:
        return msgspec.json.decode(ended.stdout, type=Care)
    except msgspec.DecodeError:
        pass
    if ended.timed_out:
        return Care(care=name, node=host, left=("the command did not end",))
    if ended.code:
        why = ended.stderr.strip().rpartition("\n")[2] or f"exit code {ended.code}"
        return Care(care=name, node=host, left=(why,))
    return Care(care=name, node=host, done=("the command has run",))


def _is_static(pod: Object) -> bool:
    return MIRROR in (pod["metadata"].get("annotations") or {})
