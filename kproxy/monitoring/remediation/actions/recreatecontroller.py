"""The action ``recreate-controller``: a new process for a part of the control plane that hangs.

Where the part is a pod that a controller would make again, the pod is deleted. A static pod cannot
be restarted by the API: deleting it deletes its mirror only. So elsewhere a command on the host
does it, ``options.componentCommand`` with ``{component}`` and ``{node}`` in it: in a lab its init,
on a real cluster for example ``pkill -KILL -f ^{component}`` with ``nodeAccess.kind: command``.

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
        hosts = tools.options.get("controlHosts", "")
        self._hosts = [host for host in hosts.split(",") if host]

    def check(self, target: Target) -> Verdict:
        """Return whether nobody leads, or the one that the alert names is stuck."""
        component = component_of(target)
        leader = self._facts.leader(component)
        if leader and not target.node:
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
        done = self._run(component, host, dry_run=False)
        return Outcome(done.good, done.refused or "; ".join(done.done) or "; ".join(done.left))

    def verify(self, target: Target) -> Verdict:
        """Return whether somebody leads."""
        component = component_of(target)
        leader = self._facts.leader(component)
        if not leader:
            return Verdict(False, f"nobody leads {component} yet")
        return Verdict(True, f"{leader} leads {component}")

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
            try:
                planned = self._run(component, host, dry_run=True)
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
        lease = self._facts.objects.get(catalog.LEASE, SYSTEM, component)
        holder = str(((lease or {}).get("spec") or {}).get("holderIdentity") or "").partition("_")
        return sorted(known, key=lambda host: host != holder[0])

    def _pod(self, component: str, host: str) -> Object | None:
        pods = self._facts.objects.list_objects(catalog.POD, SYSTEM, {"component": component})
        here = [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == host]
        return here[0] if here else None

    def _run(self, component: str, host: str, *, dry_run: bool) -> Care:
        words = [
            word.replace("{component}", component).replace("{node}", host)
            for word in self._command
        ]
        if dry_run and words[0] in _CANNOT_LOOK:
            # It has no dry run of its own; nobody leads, or an alert names this very host.
            return Care(care=self.name, node=host, dry_run=True, found=("it is to be replaced",))
        ended = self._nodes.run(
            host, [*words, *(["--dry-run"] if dry_run else [])], COMMAND_WITHIN_S
        )
        return _care(self.name, host, ended)


_CANNOT_LOOK = ("pkill", "crictl", "systemctl", "killall")


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
