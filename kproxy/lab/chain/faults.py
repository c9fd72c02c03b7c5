"""What only monitoring catches: the faults, and the links of the chain that they make."""

import contextlib
from collections.abc import Callable
from signal import SIGKILL

from kproxy.api import catalog
from kproxy.lab.chain import mixin, recovery, strangers
from kproxy.lab.chain.links import Link
from kproxy.lab.chain.recovery import Look
from kproxy.lab.chain.stage import FAULT, ChainStage
from kproxy.lab.chain.watched import NOBODY, Fault, Play, Variant
from kproxy.lab.whole import addons
from kproxy.lab.whole.roles import Role
from netns.errors import NetnsError

FIRST_GROUP = 20
"""Above the groups of all other links."""
PROBED = "proxy-hung-probed"
_ABOUT = {
    Variant.ALONE: "nobody watches",
    Variant.REMEDIATED: "with our rules, and remediation",
    Variant.MIXIN: "with the mixin's rules, and a person",
}


def hang(stage: ChainStage) -> None:
    """Stop the proxy where it is (SIGSTOP); then a backend on its node is destroyed."""
    pod = stage.choose_backend()
    stage.mark(FAULT)
    stage.cluster.processes.pause(stage.hit, Role.PROXY)
    stage.destroy(pod)


def hang_probed(stage: ChainStage) -> None:
    """Stop a proxy that is asked whether it lives (SIGSTOP); then a backend is destroyed."""
    hang(stage)


def stick(stage: ChainStage) -> None:
    """Let no data come through the proxy's open connections to the API; a backend is destroyed."""
    pod = stage.choose_backend()
    stage.mark(FAULT)
    strangers.hold_watches(stage)
    stage.destroy(pod)


def orphan(stage: ChainStage) -> None:
    """Take all managers down for good, then delete a proxy's pod and destroy a backend."""
    pod = stage.choose_backend()
    stage.mark(FAULT)
    for host in stage.control:
        process = stage.cluster.processes.get(host, Role.MANAGER)
        stage.cluster.processes.bring_down(host, Role.MANAGER)
        stage.cluster.processes.signal(process, SIGKILL)
    stage.delete_proxy()
    stage.destroy(pod)


def drain(stage: ChainStage) -> None:
    """Set the weight of all endpoints of a port to 0, behind the proxy's back."""
    stage.mark(FAULT)
    strangers.zero_weights(stage)


def mislead(stage: ChainStage) -> None:
    """Have UDP flows tracked to an endpoint that does not exist."""
    stage.mark(FAULT)
    strangers.poison_flows(stage)


def delete(stage: ChainStage) -> None:
    """Delete the proxy's rules, behind its back."""
    stage.mark(FAULT)
    strangers.delete_rules(stage)


def unprobed(stage: ChainStage) -> None:
    """Have proxies without a liveness probe, as kubeadm installs them."""
    _set_probe(stage, probed=False)


def probed(stage: ChainStage) -> None:
    """Have proxies with the liveness probe that the lab's have."""
    _set_probe(stage, probed=True)


# What a person does.


def _delete_pod(stage: ChainStage) -> None:
    for pod in stage.cluster.api.objects(catalog.POD, addons.NAMESPACE, {"k8s-app": addons.PROXY}):
        if pod["spec"].get("nodeName") == stage.hit:
            stage.cluster.api.delete(catalog.POD, addons.NAMESPACE, pod["metadata"]["name"])


def _start_managers(stage: ChainStage) -> None:
    for host in stage.control:
        stage.cluster.processes.bring_up(host, Role.MANAGER)


# What is done before and after.


def _set_probe(stage: ChainStage, *, probed: bool) -> None:
    wanted = addons.proxy(stage.cluster.places)
    if not probed:
        for container in wanted["spec"]["template"]["spec"]["containers"]:
            container.pop("livenessProbe", None)
    found = stage.cluster.api.get(catalog.DAEMON_SET, addons.NAMESPACE, addons.PROXY)
    assert found is not None
    containers = found["spec"]["template"]["spec"]["containers"]
    if ("livenessProbe" in containers[0]) is not probed:
        # Not applied: that would leave the probe, which the first application has made.
        stage.cluster.api.update(catalog.DAEMON_SET, wanted)


def _resume(stage: ChainStage) -> None:
    with contextlib.suppress(NetnsError):
        stage.cluster.processes.resume(stage.hit, Role.PROXY)


def _hit_caught_up(stage: ChainStage) -> Look:
    return recovery.caught_up(stage, (stage.hit,))


def _managed_again(stage: ChainStage) -> Look:
    return recovery.both(recovery.new_proxy(stage), recovery.caught_up(stage, stage.nodes))


def _behind_its_back(
    name: str,
    title: str,
    cause: Callable[[ChainStage], None],
    over: Callable[[ChainStage], Look],
    *,
    undo: Callable[[ChainStage], None] | None = None,
    modes: tuple[str, ...] = (),
) -> Fault:
    """Return a fault in what the proxy has left in the kernel: its next full sync repairs it."""
    return Fault(
        name=name,
        title=title,
        cause=cause,
        over=over,
        by_hand=_delete_pod,
        itself="the proxy's next full sync",
        prepare=unprobed,
        undo=undo,
        modes=modes,
    )


FAULTS = (
    # First those that take no backend away: while one drains a proxy looks at its port more often.
    _behind_its_back(
        "weight-zero",
        "all weights of a port set to 0",
        drain,
        recovery.connects,
        modes=("ipvs",),
    ),
    _behind_its_back(
        "conntrack-black-hole",
        "UDP flows tracked to nobody",
        mislead,
        recovery.flows_lead_on,
        undo=strangers.release,
    ),
    _behind_its_back("rules-deleted", "the proxy's rules deleted", delete, recovery.connects),
    Fault(
        name=PROBED,
        title="proxy hung, with a liveness probe; then a backend is gone",
        cause=hang_probed,
        over=recovery.new_proxy,
        by_hand=_delete_pod,
        itself="kubelet, liveness probe",
        prepare=probed,
        undo=_resume,
    ),
    Fault(
        name="proxy-hung",
        title="proxy hung (SIGSTOP); then a backend is gone",
        cause=hang,
        over=recovery.new_proxy,
        by_hand=_delete_pod,
        prepare=unprobed,
        undo=_resume,
    ),
    Fault(
        name="watch-stuck",
        title="proxy's watch stuck; then a backend is gone",
        cause=stick,
        over=_hit_caught_up,
        by_hand=_delete_pod,
        itself="proxy, its connection ends",
        prepare=unprobed,
        undo=strangers.release,
    ),
    Fault(
        name="daemonset-and-proxy-dead",
        title="all managers down for good, a proxy's pod and a backend gone",
        cause=orphan,
        over=_managed_again,
        by_hand=_start_managers,
        prepare=unprobed,
        undo=_start_managers,
    ),
)


def links() -> tuple[Link, ...]:
    """Return a link for every fault and variant; with a probe it is of interest alone only."""
    return tuple(
        Link(
            name=f"{fault.name}-{variant}",
            title=f"{fault.title}: {_ABOUT[variant]}",
            guarantor=fault.itself or NOBODY,
            run=Play(fault, variant),
            about=f"{fault.summary.rstrip('.')}: {_ABOUT[variant]}.",
            group=_group(fault, variant),
            seconds=_seconds(fault, variant),
            prepare=_prepare(fault, variant),
            variant=variant,
            fault=fault.name,
            modes=fault.modes,
        )
        for fault in FAULTS
        for variant in Variant
        if variant is Variant.ALONE or fault.name != PROBED
    )


def _group(fault: Fault, variant: Variant) -> int:
    """Return a group for each variant; what is waited for in vain, for long, has its own."""
    if _waits(fault, variant):
        return FIRST_GROUP + len(Variant) + FAULTS.index(fault)
    return FIRST_GROUP + list(Variant).index(variant)


def _seconds(fault: Fault, variant: Variant) -> int:
    """Return how long a trial takes, roughly."""
    if _waits(fault, variant):
        return 1200
    return 50 if variant is Variant.REMEDIATED else 100


def _waits(fault: Fault, variant: Variant) -> bool:
    return variant is Variant.MIXIN and not fault.itself


def _prepare(fault: Fault, variant: Variant) -> Callable[[ChainStage], None] | None:
    if variant is not Variant.MIXIN:
        return fault.prepare

    def prepare(stage: ChainStage) -> None:
        mixin.alone(stage)
        if fault.prepare is not None:
            fault.prepare(stage)

    return prepare
