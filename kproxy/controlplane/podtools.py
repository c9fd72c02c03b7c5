"""What the workers of all pods of a kubelet share: the machine, the clock, whom to tell."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kproxy import errors, logs
from kproxy.api.pods import Pod

from .actions import Performer
from .images import Images
from .kubeletmetrics import KubeletMetrics
from .resolving import ClusterNames
from .runtime import PodRuntime

Object = dict[str, Any]


class Recorder(Protocol):
    """Takes Events about pods (what ``kubectl describe`` shows)."""

    def note(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """Take an Event; never waits."""
        ...


class Silent:
    """Takes Events and tells nobody."""

    def note(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """See :class:`Recorder`."""


class Accounts(Protocol):
    """Files by which programs prove who they are (:mod:`.accountfiles`); never waits."""

    def obtain(self, pod: Pod) -> str | None:
        """Return None if a pod has its files, or needs none; else why not yet (empty: asked)."""
        ...

    def environment(self, pod: Pod) -> Mapping[str, str]:
        """Return the variables by which programs in a pod find API server and files."""
        ...

    def mounts(self, pod: Pod) -> Mapping[Path, Path]:
        """Return at which places programs in a pod find which directories."""
        ...

    def forget(self, uid: str) -> None:
        """Remove the files of a pod that is over; absent is fine."""
        ...

    def retain(self, uids: Collection[str]) -> None:
        """Remove what a former kubelet left of other pods than these."""
        ...


class NoAccounts:
    """Nobody has to prove anything."""

    def obtain(self, pod: Pod) -> str | None:
        """See :class:`Accounts`."""
        return None

    def environment(self, pod: Pod) -> Mapping[str, str]:
        """See :class:`Accounts`."""
        return {}

    def mounts(self, pod: Pod) -> Mapping[Path, Path]:
        """See :class:`Accounts`."""
        return {}

    def forget(self, uid: str) -> None:
        """See :class:`Accounts`."""

    def retain(self, uids: Collection[str]) -> None:
        """See :class:`Accounts`."""


class Sources(Protocol):
    """ConfigMaps and Secrets for variables (:mod:`.envsources`); never waits."""

    def look_up(self, what: str, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the values of a ``configmap`` or ``secret``; None: there is none.

        Raises :class:`.envsources.NotYet`: the kubelet will be woken when it is known.
        """
        ...


class NoSources:
    """There is no API server to have any."""

    def look_up(self, what: str, namespace: str, name: str) -> Mapping[str, str] | None:
        """See :class:`Sources`. Raises KproxyError."""
        raise errors.KproxyError(f"no {what} {name!r} without an API server", remedy="use value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """``today`` returns the wall clock as Kubernetes writes it; ``host_ips``: the node's."""

    node_name: str
    runtime: PodRuntime
    performer: Performer
    log: logs.Log
    today: Callable[[], str]
    host_ips: tuple[str, ...] = ()
    resolving: ClusterNames = field(default_factory=ClusterNames)
    images: Images = field(default_factory=Images)
    accounts: Accounts = field(default_factory=NoAccounts)
    sources: Sources = field(default_factory=NoSources)
    events: Recorder = field(default_factory=Silent)
    metrics: KubeletMetrics = field(default_factory=KubeletMetrics)


def names(pod: Pod) -> dict[str, str]:
    """Return by which fields log lines name a pod."""
    meta = pod.metadata
    return {"pod": f"{meta.namespace}/{meta.name}", "uid": meta.uid}
