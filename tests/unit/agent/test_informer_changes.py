"""What the informers remember of changes, for the metrics."""

import io
from typing import Any

from kproxy.agent.informers import TRIGGER_ANNOTATION, Informers
from kproxy.api.core import Service
from kproxy.api.discovery import EndpointSlice
from kproxy.api.meta import ObjectMeta
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest
from kproxy.logs import Log


class Proxier:
    def on_services(self, changes: Any) -> None:
        pass

    def on_slices(self, changes: Any) -> None:
        pass

    def set_service_cidrs(self, cidrs: Any) -> None:
        pass


def informers(*, service_cidrs: bool = False) -> Informers:
    return Informers(
        Rest(Access(server="http://127.0.0.1:1")),
        "n",
        Proxier(),
        Log("test", stream=io.StringIO()),
        service_cidrs=service_cidrs,
        on_change=lambda: None,
        on_node=lambda _: None,
        on_listed=lambda: None,
    )


def piece(version: str, trigger: str = "", kind: str = "IPv4") -> EndpointSlice:
    annotations = {TRIGGER_ANNOTATION: trigger} if trigger else None
    return EndpointSlice(
        metadata=ObjectMeta(name="a", resource_version=version, annotations=annotations),
        address_type=kind,
    )


def listed() -> Informers:
    made = informers()
    for _ in range(3):
        made.note_listed()
    return made


def test_what_was_listed_has_been_waiting_for_nobody_knows_how_long() -> None:
    made = informers()
    made.note_slices([(None, piece("1", "2026-01-01T00:00:00Z"))])
    made.versions()
    assert made.take_triggers() == ()


def test_only_times_that_are_new_count_and_each_once() -> None:
    made = listed()
    first = piece("1", "2026-01-01T00:00:00Z")
    made.note_slices([(None, first), (first, piece("2", "2026-01-01T00:00:00Z"))])
    made.note_slices([(first, piece("3", "2026-01-01T00:00:07Z")), (first, None)])
    made.note_slices([(None, piece("4"))])
    made.versions()
    expected = (("IPv4", "2026-01-01T00:00:00Z"), ("IPv4", "2026-01-01T00:00:07Z"))
    assert made.take_triggers() == expected
    assert made.take_triggers() == ()


def test_a_sync_answers_what_it_began_with_and_not_what_came_while_it_ran() -> None:
    made = listed()
    made.note_slices([(None, piece("1", "2026-01-01T00:00:00Z"))])
    made.versions()
    made.note_slices([(None, piece("2", "2026-01-01T00:00:07Z", kind="IPv6"))])
    assert made.take_triggers() == (("IPv4", "2026-01-01T00:00:00Z"),)
    made.versions()
    made.versions()  # the first sync has failed
    assert made.take_triggers() == (("IPv6", "2026-01-01T00:00:07Z"),)


def test_changes_are_pending_until_a_sync_begins() -> None:
    made = listed()
    made.note_slices([(None, piece("1")), (None, piece("2"))])
    made.note_services([(None, Service(metadata=ObjectMeta(name="s", resource_version="3")))])
    assert made.heard() == {"endpointslices": (2, 2), "services": (1, 1)}
    assert made.versions() == {"endpointslices": "2", "services": "3"}
    made.note_slices([(None, piece("9"))])
    assert made.heard() == {"endpointslices": (3, 1), "services": (1, 0)}


def test_what_is_needed_is_followed_and_what_a_server_may_lack_once_it_was_listed() -> None:
    assert kinds(informers()) == ["endpointslices", "services", "nodes"]
    made = informers(service_cidrs=True)
    assert kinds(made) == ["endpointslices", "services", "nodes"]
    made._all[-1]._synced = True
    assert kinds(made) == ["endpointslices", "services", "nodes", "servicecidrs"]


def kinds(made: Informers) -> list[str]:
    return [one.kind.plural for one in made.followed()]
