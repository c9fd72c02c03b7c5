"""Debian's Alertmanager, unmodified, sends to the real receiver."""

import http.client
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ports
import pytest
from remediation_process import PATIENCE_S, TOKEN, Receiver, api, receiver

from kproxy import rfc3339
from kproxy.monitoring.remediation import journal
from kproxy.monitoring.remediation.records import AnyRecord, Ended, Notified, Result, Said, Seen
from netns.wait import wait_until

pytestmark = pytest.mark.needs_tool("prometheus-alertmanager")
LABELS = {"alertname": "Broken", "trouble": "t", "node": "n1", "remediation": "mend"}


@contextmanager
def alertmanager(directory: Path, one: Receiver, token: str = TOKEN) -> Iterator[int]:
    """Run an Alertmanager that sends to a receiver; give its port."""
    port = ports.unused()
    (directory / "am-token").write_text(token)
    hook = {
        "url": f"http://127.0.0.1:{one.port}/alerts",
        "send_resolved": True,
        "http_config": {
            "authorization": {"credentials_file": str(directory / "am-token")},
        },
    }
    route = {"receiver": "r", "group_by": ["alertname", "node"], "group_wait": "0s"}
    route |= {"group_interval": "200ms", "repeat_interval": "200ms"}
    config = {"route": route, "receivers": [{"name": "r", "webhook_configs": [hook]}]}
    (directory / "am.yml").write_text(json.dumps(config))
    command = ["prometheus-alertmanager", f"--config.file={directory}/am.yml"]
    command += [f"--storage.path={directory}/am", f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "am.log").open("wb") as log:
        process = subprocess.Popen([*command, "--cluster.listen-address="], stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def post(port: int, *alerts: dict[str, Any]) -> None:
    """Give alerts to Alertmanager, as Prometheus does."""

    def posted() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/api/v2/alerts", json.dumps(alerts), headers)
            assert connection.getresponse().status == 200
            return True
        except ConnectionRefusedError:
            return False
        finally:
            connection.close()

    wait_until(posted, PATIENCE_S, "Alertmanager to listen", interval=0.05)


def alerts_of(records: list[AnyRecord]) -> list[Seen]:
    return [seen for one in records if isinstance(one, Notified) for seen in one.alerts]


def await_journal(one: Receiver, wanted: Callable[[list[AnyRecord]], bool]) -> list[AnyRecord]:
    records: list[AnyRecord] = []

    def written() -> bool:
        records[:] = journal.read(one.directory / "journal")
        return wanted(records)

    one.until(written, "the journal to be as wanted", interval=0.05)
    return records


def test_an_alert_is_repaired_once_however_often_it_is_sent(tmp_path: Path) -> None:
    def said(records: list[AnyRecord]) -> list[Said]:
        return [seen.said for seen in alerts_of(records)]

    with (
        api() as (server, _),
        receiver(tmp_path, server) as one,
        alertmanager(tmp_path, one) as am,
    ):
        starts = time.time() - 1
        fires = {"labels": LABELS, "startsAt": rfc3339.microtime(starts)}
        post(am, fires)
        await_journal(one, lambda records: said(records).count(Said.REPEATED) >= 3)
        one.end(signal.SIGKILL)
        one.start()
        begun = len(said(list(journal.read(tmp_path / "journal"))))
        await_journal(one, lambda records: len(said(records)) > begun)
        post(am, {**fires, "endsAt": rfc3339.microtime(time.time())})
        records = await_journal(one, lambda records: Said.RESOLVED in said(records))
    assert [name for what, name, _ in one.log if what == "begin"] == ["t"]
    assert [record.result for record in records if isinstance(record, Ended)] == [Result.HELPED]
    seen = alerts_of(records)
    assert {one.fingerprint for one in seen} == {seen[0].fingerprint}
    assert seen[0].labels == LABELS
    assert seen[0].starts == pytest.approx(starts, abs=1e-5)
    first = next(record for record in records if isinstance(record, Notified))
    assert 'alertname="Broken"' in first.group_key


def test_one_with_another_token_gets_nothing_done(tmp_path: Path) -> None:
    rejected = 'kproxy_remediation_notifications_total{result="unauthenticated"}'
    with (
        api() as (server, _),
        receiver(tmp_path, server) as one,
        alertmanager(tmp_path, one, "some other token") as am,
    ):
        post(am, {"labels": LABELS})
        one.await_metric(lambda found: found[rejected] >= 1)
        assert alerts_of(list(journal.read(tmp_path / "journal"))) == []
    assert one.log == []
