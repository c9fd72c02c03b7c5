"""Events on what is repaired, sent to an API server that only remembers."""

import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast

import msgspec
import pytest
from remediation_alerts import Mend, alert, notification

from kproxy.client.rest import Rest, Unreachable
from kproxy.logs import Log
from kproxy.monitoring.remediation import service, telling
from kproxy.monitoring.remediation.actions import catalog
from kproxy.monitoring.remediation.settings import Access, ActionSettings, Journal, Settings
from kproxy.monitoring.remediation.telling import Events

TOLD_WITHIN_S = 60.0
NODE = b'{"metadata": {"name": "n1", "uid": "u1"}}'


class Api:
    """Answers each question for an object with the next of ``answers``; keeps what is posted."""

    def __init__(self, *answers: bytes | Exception, takes: float = 0.0) -> None:
        self.takes = takes
        self.answers: Iterator[bytes | Exception] = iter(answers)
        self.posted: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def derive(self) -> Self:
        return self

    def request(self, method: str, path: str, *, body: bytes = b"") -> bytes:
        time.sleep(self.takes)  # a server that is slow
        if method == "POST":
            self.posted.put((path, msgspec.json.decode(body)))
            return b"{}"
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def events(api: Api) -> Events:
    return Events(cast(Rest, api), Log("test"))


def test_an_event_is_on_the_object_and_found_by_its_uid() -> None:
    api = Api(NODE)
    events(api).tell("Node/n1", "RemediationFailed", "mend: failed", warning=True)
    path, event = api.posted.get(timeout=TOLD_WITHIN_S)
    assert path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert event["regarding"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "namespace": "",
        "name": "n1",
        "uid": "u1",
    }
    assert (event["type"], event["reason"]) == ("Warning", "RemediationFailed")
    assert event["metadata"]["namespace"] == "default"


def test_what_has_a_namespace_has_its_events_there_and_a_note_fits() -> None:
    event = telling.event("DaemonSet/a/b", "Began", "\N{SNOWMAN}" * 1000, 1.5, warning=False)
    assert event["metadata"]["namespace"] == event["regarding"]["namespace"] == "a"
    assert event["regarding"]["apiVersion"] == "apps/v1"
    assert event["eventTime"] == "1970-01-01T00:00:01.500000Z"
    assert len(event["note"].encode()) <= telling.NOTE_MOST
    assert event["type"] == "Normal"


@pytest.mark.parametrize(
    "answer",
    [Unreachable("the API server is away"), b"<html>", b'{"kind": "Node"}', b'{"metadata": 1}'],
)
def test_what_the_api_server_does_not_take_is_lost_and_the_next_is_told(
    answer: bytes | Exception,
) -> None:
    api = Api(answer, NODE)
    told = events(api)
    told.tell("Node/n1", "First", "")
    told.tell("Node/n1", "Second", "")
    assert api.posted.get(timeout=TOLD_WITHIN_S)[1]["reason"] == "Second"


@pytest.mark.parametrize("target", ["Alert/Broken", ""])
def test_what_is_no_object_has_no_events(target: str) -> None:
    api = Api(NODE)
    told = events(api)
    told.tell(target, "First", "")
    told.tell("Node/n1", "Second", "")
    assert api.posted.get(timeout=TOLD_WITHIN_S)[1]["reason"] == "Second"


def test_who_is_about_to_end_waits_until_all_is_told() -> None:
    api = Api(NODE, NODE, Unreachable("the API server is away"))
    told = events(api)
    for reason in ("First", "Second", "Lost"):
        told.tell("Node/n1", reason, "")
    told.flush(TOLD_WITHIN_S)
    assert [api.posted.get_nowait()[1]["reason"] for _ in range(2)] == ["First", "Second"]
    assert api.posted.empty()


def test_events_of_one_notification_from_a_file_are_sent_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, mend = Api(NODE, NODE, takes=0.2), Mend()
    monkeypatch.setattr(catalog, "ACTIONS", {"mend": lambda _: mend})
    monkeypatch.setattr(catalog, "NODE_ACCESS", {"none": lambda *_: None})
    monkeypatch.setattr(service, "END_S", TOLD_WITHIN_S)
    monkeypatch.setattr(service, "Events", lambda _, log: Events(cast(Rest, api), log))
    settings = Settings(
        journal=Journal(directory=str(tmp_path)),
        node_access=Access(kind="none"),
        actions={"mend": ActionSettings()},
    )
    service.once(settings, notification(alert(starts=time.time())), Log("test"))
    reasons = [api.posted.get_nowait()[1]["reason"] for _ in range(2)]
    assert reasons == ["RemediationBegan", "RemediationHelped"]
