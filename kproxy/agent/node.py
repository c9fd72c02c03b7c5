"""What rules depend on of the node itself: its addresses, its zone, its pods' networks.

Learnt from the kernel (again when addresses change, and at every full sync) and from the Node
object, and handed on to the proxiers when anything of it has changed.
"""

import threading
import time
from collections.abc import Callable, Mapping

from kproxy.agent.nodeaddresses import pod_networks, wrong_networks
from kproxy.agent.settings import Settings
from kproxy.api import core
from kproxy.backends.base import FAMILIES
from kproxy.desired.model import Family, NodePorts, Prefix
from kproxy.errors import KernelError
from kproxy.kernel.links import own
from kproxy.logs import Log
from kproxy.proxier import DualStack

SERVICE_DEVICE = "kube-ipvs0"
"""Carries the addresses of services, in ipvs mode, or left by it: none of the node's own."""

SETTLE_S = 0.3
"""So long after a change addresses are read: they come several at a time."""
FOLLOW_AGAIN_S = 10.0


class NodeFacts:
    """Knows the node. Methods may be called from any thread.

    ``on_change``: something that matters to rules has changed.
    """

    def __init__(
        self,
        settings: Settings,
        proxier: DualStack,
        log: Log,
        *,
        on_change: Callable[[], None],
        read: Callable[[str], own.Own] = own.own_addresses,
    ) -> None:
        self._settings = settings
        self._proxier = proxier
        self._log = log
        self._on_change = on_change
        self._read = read
        self._lock = threading.Lock()
        self._node: core.Node | None = None
        self._own: own.Own = {}
        self._zone = ""
        self._wrong: set[str] = set()
        """What was wrong in the Node object, in words."""
        self._pods: Mapping[Family, tuple[Prefix, ...]] = {}
        self._node_ports: Mapping[Family, NodePorts] = {}

    @property
    def awaited(self) -> str:
        """Return what is still to be known before the first sync; empty: nothing."""
        if self._settings.pods_by_node and not self._pods:
            return f"spec.podCIDRs of Node {self._settings.node}"
        return ""

    @property
    def uid(self) -> str:
        """Return the uid of the Node object; empty while there is none."""
        return self._node.metadata.uid if self._node is not None else ""

    @property
    def node_ports(self) -> Mapping[Family, NodePorts]:
        """Return where node ports are served now."""
        return self._node_ports

    def take_node(self, node: core.Node | None) -> None:
        """Take the newest version of this node's object; None: it is gone.

        A node reports every few seconds that it lives; that is no reason to sync. Who has no node
        any more keeps what was known of it.
        """
        if node is None:
            return
        with self._lock:
            self._node = node
            changed = self._look_at_zone(node)
            changed = self._look_at_pods(node) or changed
            changed = self._resolve() or changed
        if changed:
            self._on_change()

    def look(self) -> None:
        """Read the node's addresses; what fails is logged."""
        try:
            found = self._read(SERVICE_DEVICE)
        except KernelError as error:
            self._log.warning("reading the node's addresses failed", error=str(error))
            return
        with self._lock:
            self._own = found
            changed = self._resolve()
        if changed:
            self._on_change()

    def follow(self) -> None:
        """Look again whenever addresses change, in a thread that ends with the process."""
        threading.Thread(target=self._follow, name="addresses", daemon=True).start()

    def _follow(self) -> None:
        while True:
            try:
                changes = own.AddressChanges(SERVICE_DEVICE)
            except KernelError as error:
                self._log.warning("following the node's addresses failed", error=str(error))
                time.sleep(FOLLOW_AGAIN_S)
                continue
            try:
                while True:
                    self.look()  # also at first: something may have changed before
                    changes.wait(SETTLE_S)
            except KernelError as error:
                self._log.warning("following the node's addresses failed", error=str(error))
            finally:
                changes.close()
            time.sleep(FOLLOW_AGAIN_S)

    def _look_at_zone(self, node: core.Node) -> bool:
        zone = (node.metadata.labels or {}).get(core.ZONE_LABEL, "")
        if zone == self._zone:
            return False
        self._zone = zone
        self._proxier.set_zone(zone)
        return True

    def _look_at_pods(self, node: core.Node) -> bool:
        if not self._settings.pods_by_node:
            return False
        wrong = {str(problem) for problem in wrong_networks(node)}
        for error in sorted(wrong - self._wrong):  # a node is told of every few seconds
            self._log.warning("invalid object", error=error)
        self._wrong = wrong
        pods = pod_networks(node)
        if not pods or pods == self._pods:
            return False
        self._pods = pods
        self._proxier.set_cluster_cidrs(pods)
        return True

    def _resolve(self) -> bool:
        """Find out where node ports are served; return whether that has changed."""
        found = {
            policy.family: policy.node_ports(
                self._own.get(FAMILIES[policy.family], ()), self._node
            )
            for policy in self._settings.node_ports
        }
        if found == self._node_ports:
            return False
        self._node_ports = found
        self._proxier.set_node_ports(found)
        return True
