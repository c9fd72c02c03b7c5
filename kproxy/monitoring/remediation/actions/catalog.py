"""Which actions there are, and which ways to reach a node: by the names users write."""

from collections.abc import Callable, Mapping

from kproxy.client.rest import Rest
from kproxy.logs import Log
from kproxy.monitoring.remediation.seams import Action, NodeAccess, Tools

from . import commandaccess, execaccess, nodecommands
from .cordonnode import CordonNode
from .recreatecontroller import RecreateController
from .restartproxy import RestartProxy

ACTIONS: Mapping[str, Callable[[Tools], Action]] = {
    "restart-proxy": RestartProxy,
    "resync-proxy": nodecommands.resync,
    "clean-conntrack": nodecommands.clean_conntrack,
    "heal-weights": nodecommands.heal_weights,
    "cordon-node": CordonNode,
    "recreate-controller": RecreateController,
}
"""Names of actions (the label ``remediation``) → what makes one."""

NODE_ACCESS: Mapping[str, Callable[[Rest | None, Log, Mapping[str, str]], NodeAccess]] = {
    "exec": execaccess.make,
    "command": commandaccess.make,
}
"""Values of ``nodeAccess.kind`` → what makes that access, given ``nodeAccess.options``."""

PROXIES = frozenset({"proxyNamespace", "proxyLabels"})
OPTIONS = PROXIES | {
    *("kproxy", "healthzPort", "graceSeconds", "componentCommand", "componentLook"),
    "controlHosts",
}
"""What there may be in ``options``; another name is a mistake, and would be for nobody."""
ACCESS_OPTIONS = PROXIES | {"command", "quote"}
"""The same of ``nodeAccess.options``."""
