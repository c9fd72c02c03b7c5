"""Running commands on a node by ``pods/exec`` into the pod of its proxy, which is in its network.

Works also while the proxy's process is stopped: its container runs. What runs there is bounded by
the connection's end here, and by ``kproxy node --within`` there, because a container runtime may
let a program go on whose client has left.
"""

from collections.abc import Mapping, Sequence

from kproxy.client import podexec
from kproxy.client.rest import Rest
from kproxy.errors import KproxyError, UsageError
from kproxy.logs import Log
from kproxy.monitoring.remediation.seams import Finished, NodeAccess, NodeUnreachable

from . import commandaccess
from .cluster import ClusterFacts, Proxies


class ExecAccess:
    """Implements :class:`~kproxy.monitoring.remediation.seams.NodeAccess`."""

    def __init__(self, rest: Rest, proxies: Proxies) -> None:
        self._rest = rest
        self._facts = ClusterFacts(rest, proxies)

    def run(self, node: str, command: Sequence[str], timeout: float) -> Finished:
        """Run a command in the proxy's container on a node. Raises NodeUnreachable."""
        try:
            where = self._where(node)
            ran = podexec.run(self._rest, where, command, timeout)
        except podexec.ExecTimeout:
            return Finished(code=-1, timed_out=True)
        except podexec.ExecLost as error:
            # It may have done its work, its own end included: who tries another way does it twice.
            return Finished(code=-1, stderr=str(error))
        except NodeUnreachable:
            raise
        except KproxyError as error:
            raise NodeUnreachable(f"node {node}: {error}") from None
        return Finished(code=ran.code, stdout=ran.stdout, stderr=ran.stderr)

    def _where(self, node: str) -> tuple[str, str, str]:
        running = [
            (pod, container)
            for pod in self._facts.proxy_pods(node)
            for container in (pod.get("status") or {}).get("containerStatuses") or ()
            if "running" in (container.get("state") or {})
        ]
        if not running:
            raise NodeUnreachable(f"node {node}: no container of a proxy runs there")
        # Of two during an update the newer one writes, or will.
        pod, container = max(running, key=lambda one: one[0]["metadata"]["creationTimestamp"])
        meta = pod["metadata"]
        return meta["namespace"], meta["name"], container["name"]


class Either:
    """One way, and where that does not reach the node, another."""

    def __init__(self, first: NodeAccess, second: NodeAccess) -> None:
        self._first = first
        self._second = second

    def run(self, node: str, command: Sequence[str], timeout: float) -> Finished:
        """Run a command on a node. Raises NodeUnreachable if neither way leads there."""
        try:
            return self._first.run(node, command, timeout)
        except NodeUnreachable as first:
            try:
                return self._second.run(node, command, timeout)
            except NodeUnreachable as second:
                raise NodeUnreachable(f"{first}; {second}") from None


def make(rest: Rest | None, log: Log, options: Mapping[str, str]) -> NodeAccess:
    """Make one; with ``options.command``, that is the way where no proxy's container runs.

    Raises UsageError without an API server.
    """
    if rest is None:
        raise UsageError(
            "nodeAccess.kind exec needs an API server", remedy="give kubeconfig in the file"
        )
    access = ExecAccess(rest, Proxies.of(options))
    if "command" not in options:
        return access
    return Either(access, commandaccess.make(rest, log, options))
