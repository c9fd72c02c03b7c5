"""What the daemon follows on the API server: Services, EndpointSlices, its own Node, ranges.

Each kind has a thread of its own, which only notes what is new. Nothing is synced before all kinds
have been listed, because rules for half of them would cut traffic to the rest.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from kproxy.api import addresses, core, discovery, networking
from kproxy.client.informer import Informer, Selection
from kproxy.client.rest import Rest
from kproxy.desired.model import Family, Prefix
from kproxy.errors import ApiError, InvalidObject, KproxyError
from kproxy.logs import Log

PROBLEM_SILENCE_S = 30.0

TRIGGER_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"
TRIGGERS_MOST = 10000
"""So many are kept until a sync succeeds."""

Trigger = tuple[str, str]
"""Kind of addresses, as EndpointSlices name it, and when an endpoint changed, in RFC 3339."""

_Handler = Callable[[Sequence[Any]], None]


class Noting(Protocol):
    """Who is told of new objects; called from several threads."""

    def on_services(self, changes: Sequence[Any], /) -> None:
        """Note changes of Services."""

    def on_slices(self, changes: Sequence[Any], /) -> None:
        """Note changes of EndpointSlices."""

    def set_service_cidrs(self, cidrs: Mapping[Family, tuple[Prefix, ...]], /) -> None:
        """Note the networks from which ClusterIPs come, by family."""


class Informers:
    """Hands on what the API server tells.

    ``on_listed``: everything has been listed; called once, by the thread that was last.
    ``on_change``: something was noted since then that matters to rules. ``on_node``: this node's
    newest object, None if it is gone. ``service_cidrs``: whether to follow ServiceCIDRs, too; a
    server that does not have or show them is as good as one without any.
    """

    def __init__(
        self,
        rest: Rest,
        node: str,
        proxier: Noting,
        log: Log,
        *,
        service_cidrs: bool,
        on_change: Callable[[], None],
        on_node: Callable[[core.Node | None], None],
        on_listed: Callable[[], None],
    ) -> None:
        self._rest = rest
        self._proxier = proxier
        self._log = log
        self._on_change = on_change
        self._on_node = on_node
        self._on_listed = on_listed
        self._ranges: dict[str, networking.ServiceCIDR] = {}
        self._listed = False
        self._newest: dict[str, str] = {}
        self._heard = {"endpointslices": 0, "services": 0}
        self._answered = dict(self._heard)
        self._triggers: deque[Trigger] = deque(maxlen=TRIGGERS_MOST)
        self._begun: deque[Trigger] = deque(maxlen=TRIGGERS_MOST)
        own_node = Selection(field_selector=f"metadata.name={node}")
        self._slices = self._make(discovery.EndpointSlice, "endpointslices", self.note_slices)
        self._services = self._make(core.Service, "services", self.note_services)
        self._nodes = self._make(core.Node, "nodes", self.note_node, selection=own_node)
        self._needed = [self._slices, self._services, self._nodes]
        self._all = [*self._needed]
        if service_cidrs:
            self._all.append(self._make_optional())
        self._count = itertools.count(1)

    def start(self) -> None:
        """Begin to follow all kinds."""
        for informer in self._all:
            informer.start()

    def followed(self) -> Sequence[Informer[Any]]:
        """Return what follows a kind; one that a server may lack only if it has been listed."""
        return [one for one in self._all if one in self._needed or one.synced]

    def versions(self) -> Mapping[str, str]:
        """Return the newest version that was noted of each kind: a copy.

        Called at the beginning of a sync: what was heard until then is not pending any more.
        """
        self._answered = dict(self._heard)
        self._begun.extend(self._triggers.popleft() for _ in range(len(self._triggers)))
        return dict(self._newest)

    def heard(self) -> Mapping[str, tuple[int, int]]:
        """Return of each kind how many changes were heard of, and how many are pending."""
        answered = self._answered  # first: it may be another one a moment later
        return {kind: (count, count - answered[kind]) for kind, count in self._heard.items()}

    def take_triggers(self) -> Sequence[Trigger]:
        """Return when those endpoints changed that a sync has begun with, each once.

        As written on EndpointSlices that changed after the first list. What is heard of while a
        sync runs is for the next one. To be called by who calls :meth:`versions`.
        """
        taken, self._begun = tuple(self._begun), deque(maxlen=TRIGGERS_MOST)
        return taken

    def counts(self) -> tuple[int, int]:
        """Return how many Services there are, and endpoints in slices."""
        pieces = self._slices.objects.values()
        return len(self._services.objects), sum(len(piece.endpoints or ()) for piece in pieces)

    def note_slices(self, changes: Sequence[Any]) -> None:
        """Take changes of EndpointSlices."""
        self._proxier.on_slices(changes)
        if self._listed:
            told = itertools.starmap(_trigger, changes)
            self._triggers.extend(one for one in told if one[1])
        self._noted("endpointslices", changes)

    def note_services(self, changes: Sequence[Any]) -> None:
        """Take changes of Services."""
        self._proxier.on_services(changes)
        self._noted("services", changes)

    def note_node(self, changes: Sequence[Any]) -> None:
        """Take the newest version of this node's object."""
        _old, new = changes[-1]
        self._on_node(new)

    def note_service_cidrs(self, changes: Sequence[Any]) -> None:
        """Take changes of ServiceCIDRs."""
        for old, new in changes:
            if new is None:
                self._ranges.pop(old.metadata.name, None)
            else:
                self._ranges[new.metadata.name] = new
                for error in _wrong_networks(new):
                    self._log.warning("invalid object", error=str(error))
        self._proxier.set_service_cidrs(service_networks(self._ranges.values()))
        self._changed()

    def note_listed(self) -> None:
        """Take that one more kind has been listed."""
        # Two threads never get the same number.
        if next(self._count) == len(self._all):
            self._listed = True
            self._on_listed()

    def _make(self, wanted: type, kind: str, on_changes: _Handler, **more: Any) -> Any:
        return Informer(
            self._rest,
            wanted,
            on_changes=on_changes,
            on_synced=self.note_listed,
            on_problem=ProblemReporter(self._log, kind).report,
            **more,
        )

    def _make_optional(self) -> Any:
        told = OptionalKind(self._log, "servicecidrs", self.note_listed)
        return Informer(
            self._rest,
            networking.ServiceCIDR,
            on_changes=self.note_service_cidrs,
            on_synced=told.listed,
            on_problem=told.report,
        )

    def _noted(self, kind: str, changes: Sequence[Any]) -> None:
        self._heard[kind] += len(changes)
        newest = self._newest.get(kind, "")
        for old, new in changes:
            version = (new or old).metadata.resource_version
            if _newer(version, newest):
                newest = version
        self._newest[kind] = newest
        self._changed()

    def _changed(self) -> None:
        if self._listed:
            self._on_change()


class ProblemReporter:
    """Logs an informer's problems; the same one only now and then."""

    def __init__(self, log: Log, kind: str) -> None:
        self._log = log
        self._kind = kind
        self._last = ""
        self._at = 0.0

    def report(self, error: KproxyError) -> None:
        """Log a problem."""
        text, now = str(error), time.monotonic()
        if text == self._last and now - self._at < PROBLEM_SILENCE_S:
            return
        self._last, self._at = text, now
        self._log.warning("API problem", kind=self._kind, error=text)


class OptionalKind:
    """A kind that a server may lack, or not show: then it counts as listed."""

    def __init__(self, log: Log, kind: str, on_listed: Callable[[], None]) -> None:
        self._log = log
        self._kind = kind
        self._reporter = ProblemReporter(log, kind)
        self._on_listed = on_listed
        self._told = False

    def listed(self) -> None:
        """Take that it has been listed, or never will be."""
        if not self._told:
            self._told = True
            self._on_listed()

    def report(self, error: KproxyError) -> None:
        """Log a problem, unless it is that there is no such kind."""
        if not isinstance(error, ApiError) or error.code not in (403, 404):
            self._reporter.report(error)
            return
        if not self._told:
            self._log.debug("done without", kind=self._kind, reason=str(error))
        self.listed()


def service_networks(
    ranges: Iterable[networking.ServiceCIDR],
) -> Mapping[Family, tuple[Prefix, ...]]:
    """Return the networks of ServiceCIDRs by family, in order, each once."""
    found: dict[Family, set[Prefix]] = {family: set() for family in Family}
    for one in ranges:
        for text in one.spec.cidrs or ():
            parsed = addresses.parse_network(text)
            if parsed is not None:
                family = Family.IPV4 if parsed.version == 4 else Family.IPV6
                found[family].add(Prefix(parsed.text))
    return {family: tuple(sorted(networks)) for family, networks in found.items()}


def _wrong_networks(one: networking.ServiceCIDR) -> Iterable[InvalidObject]:
    """Yield what a ServiceCIDR names that is no network."""
    for index, text in enumerate(one.spec.cidrs or ()):
        if addresses.parse_network(text) is None:
            label, field = f"ServiceCIDR {one.metadata.name}", f"spec.cidrs[{index}]"
            remedy = "correct the ServiceCIDR"
            yield InvalidObject(label, field, f"{text!r} is not a network", remedy=remedy)


def _trigger(old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None) -> Trigger:
    """Return the time that a slice tells for the first time; empty: none."""
    if new is None:
        return "", ""
    told = (new.metadata.annotations or {}).get(TRIGGER_ANNOTATION, "")
    known = (old.metadata.annotations or {}).get(TRIGGER_ANNOTATION, "") if old else ""
    return new.address_type, told if told != known else ""


def _newer(version: str, known: str) -> bool:
    """Compare resource versions, which are numbers in every store that is in use."""
    if _is_number(version) and _is_number(known):
        return int(version) > int(known)
    return version != known


def _is_number(version: str) -> bool:
    """Return whether it is one of 64 bits, as far as may be said without reading it."""
    return version.isascii() and version.isdigit() and len(version) <= 20
