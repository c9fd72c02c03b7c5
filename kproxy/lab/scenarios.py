"""What is done to a cluster under traffic: one function per scenario, and the table of them all.

A scenario is given a :class:`Stage`. It marks on the time line what happens, and returns when the
cluster has done what it does about the fault; the trial then watches the traffic a while longer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

CABLE_PULL = "cable-pull"

FAULT = "fault"
PROCESS_GONE = "process gone"
PROCESS_STARTED = "process started"
SYNCED = "synced"
RELEASED = "lock released"
HOLDING = "lock held"
ENDPOINT_GONE = "endpoint gone"
CARRIER_LOST = "carrier lost"
PLUGGED = "cable plugged in"
CARRIER_BACK = "carrier back"
CUT_OFF_SECONDS = 2.0
"""How long a pulled cable is out: long for packets, too short for anybody to give up the node."""

RECOVERY_SECONDS = 30.0
"""How long a cluster may take to get over a fault before the trial has failed."""


class Stage(Protocol):
    """What a scenario can do and see. Times are nanoseconds of the monotonic clock."""

    @property
    def hit(self) -> str:
        """Return the name of the node that the fault is done to."""
        ...

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of all nodes, the hit one first."""
        ...

    def mark(self, name: str, ns: int | None = None, detail: str = "") -> int:
        """Put something on the time line, now or at a given time; return that time."""
        ...

    def kill_proxy(self, node: str) -> tuple[int, int]:
        """SIGKILL the node's proxy; return when it was sent and when the process was gone."""
        ...

    def delete_proxy(self, node: str) -> None:
        """Delete the node's proxy pod through the API."""
        ...

    def await_exit(self, node: str, since: int) -> int:
        """Wait until the kubelet has seen the node's proxy end; return that time."""
        ...

    def await_restart(self, node: str, since: int) -> tuple[int, int]:
        """Wait for a new proxy; return when its process started and when it first synced."""
        ...

    def await_hand_over(self, node: str, since: int) -> tuple[int, int]:
        """Wait for a hand-over on the node; return when the old proxy stopped, the new began."""
        ...

    def choose_endpoint(self) -> str:
        """Return the name of a pod that is measured."""
        ...

    def destroy_endpoint(self, pod: str) -> None:
        """Destroy a pod: processes, namespace, address."""
        ...

    def await_endpoint_removed(self, node: str, pod: str) -> int:
        """Wait until the node's kernel no longer sends to that pod; return when it synced that."""
        ...

    def update_proxies(self, *, surge: bool) -> None:
        """Change the DaemonSet's template, which begins a rolling update, node by node.

        ``surge``: the new proxy starts beside the old one, instead of after it.
        """
        ...

    def pull_cable(self, node: str) -> tuple[int, int, str]:
        """Pull the node's cable; return when, when the kernel had noticed, and in which host."""
        ...

    def plug_cable(self, node: str) -> tuple[int, int, str]:
        """Plug it in again; return when, when the kernel had noticed, and in which host."""
        ...

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def upgrade_proxies(self) -> None:
        """Give the DaemonSet a version of the proxy that writes other rules: a rolling update."""
        ...


def baseline(stage: Stage) -> None:
    """Do nothing: whatever is lost here is the tester's own doing."""


def proxy_crash(stage: Stage) -> None:
    """Kill the proxy with SIGKILL; the kubelet restarts it."""
    fault, gone = stage.kill_proxy(stage.hit)
    stage.mark(FAULT, fault)
    mark_restart(stage, stage.hit, fault, gone)


def proxy_delete(stage: Stage) -> None:
    """Delete the proxy's pod; its DaemonSet creates another."""
    fault = stage.mark(FAULT)
    stage.delete_proxy(stage.hit)
    mark_restart(stage, stage.hit, fault, stage.await_exit(stage.hit, fault))


def endpoint_crash(stage: Stage) -> None:
    """Destroy a pod while the proxies are alive; they take it out of service."""
    pod = stage.choose_endpoint()
    stage.mark(FAULT)
    stage.destroy_endpoint(pod)
    stage.mark(ENDPOINT_GONE, detail=pod)
    for node in stage.nodes:
        stage.mark(SYNCED, stage.await_endpoint_removed(node, pod), node)


def endpoint_crash_while_proxy_down(stage: Stage) -> None:
    """Kill the proxy and, as soon as it is gone, destroy a pod: nobody takes it out of service."""
    pod = stage.choose_endpoint()
    fault, gone = stage.kill_proxy(stage.hit)
    stage.destroy_endpoint(pod)
    stage.mark(FAULT, fault)
    stage.mark(ENDPOINT_GONE, detail=pod)
    mark_restart(stage, stage.hit, fault, gone)
    for node in stage.nodes:
        synced = stage.await_endpoint_removed(node, pod)
        stage.mark(f"{SYNCED} without the endpoint", synced, node)


def proxy_rolling_update(stage: Stage) -> None:
    """Replace the proxies of all nodes, one node at a time, by changing the DaemonSet."""
    fault = stage.mark(FAULT)
    stage.update_proxies(surge=False)
    for node in stage.nodes:
        mark_restart(stage, node, fault, stage.await_exit(node, fault))


def proxy_upgrade(stage: Stage) -> None:
    """Replace the proxies, one node at a time, by a version whose rules look different."""
    fault = stage.mark(FAULT)
    stage.upgrade_proxies()
    for node in stage.nodes:
        mark_restart(stage, node, fault, stage.await_exit(node, fault))


def proxy_surge_update(stage: Stage) -> None:
    """Replace the proxies node by node by ones that start beside them and take over (maxSurge)."""
    fault = stage.mark(FAULT)
    stage.update_proxies(surge=True)
    for node in stage.nodes:
        released, held = stage.await_hand_over(node, fault)
        started, synced = stage.await_restart(node, fault)
        stage.mark(PROCESS_STARTED, started, node)
        stage.mark(RELEASED, released, node)
        stage.mark(HOLDING, held, node)
        stage.mark(SYNCED, synced, node)
        stage.mark(PROCESS_GONE, stage.await_exit(node, fault), node)


def cable_pull(stage: Stage) -> None:
    """Pull the node's cable, and plug it in again two seconds later; its carrier is watched."""
    pulled, lost, where = stage.pull_cable(stage.hit)
    stage.mark(FAULT, pulled)
    stage.mark(CARRIER_LOST, lost, where)
    stage.pause(CUT_OFF_SECONDS)
    plugged, back, where = stage.plug_cable(stage.hit)
    stage.mark(PLUGGED, plugged)
    stage.mark(CARRIER_BACK, back, where)


def mark_restart(stage: Stage, node: str, since: int, gone: int) -> None:
    """Wait for a new proxy on a node and mark what has happened to it; the old was gone then."""
    started, synced = stage.await_restart(node, since)
    # Whoever waits for the end hears of it a little later than it is, and the kubelet may be
    # quicker: a successor that has started proves that the process was gone.
    stage.mark(PROCESS_GONE, min(gone, started), node)
    stage.mark(PROCESS_STARTED, started, node)
    stage.mark(SYNCED, synced, node)


S = TypeVar("S", bound=Stage)


@dataclass(frozen=True, slots=True)
class Scenario(Generic[S]):
    """A scenario by its name. ``lossless``: losing anything is against the promise."""

    name: str
    run: Callable[[S], None]
    lossless: bool = False

    @property
    def summary(self) -> str:
        """Return the first line of its description."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


BASELINE = Scenario("baseline", baseline, lossless=True)
SCENARIOS: dict[str, Scenario[Stage]] = {
    scenario.name: scenario
    for scenario in (
        BASELINE,
        Scenario("proxy-crash", proxy_crash, lossless=True),
        Scenario("proxy-delete", proxy_delete, lossless=True),
        Scenario("endpoint-crash", endpoint_crash),
        Scenario("endpoint-crash-while-proxy-down", endpoint_crash_while_proxy_down),
        Scenario("proxy-rolling-update", proxy_rolling_update, lossless=True),
        Scenario("proxy-surge-update", proxy_surge_update, lossless=True),
        Scenario("proxy-upgrade", proxy_upgrade, lossless=True),
        Scenario(CABLE_PULL, cable_pull),
    )
}
