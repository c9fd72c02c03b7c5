import json
import re
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kproxy import rfc3339
from kproxy.cli.remediate import remediate
from kproxy.client.kubeconfig import Access
from kproxy.errors import InvalidObject, UsageError
from kproxy.logs import Log
from kproxy.monitoring.remediation import service
from kproxy.monitoring.remediation import settings as configuration
from kproxy.monitoring.remediation.actions import catalog
from kproxy.monitoring.remediation.journal import Journal
from kproxy.monitoring.remediation.records import Started
from kproxy.monitoring.remediation.seams import Limits, Outcome, Target, Tools, Verdict

DEFAULT = Path(configuration.__file__).parents[1] / "deploy" / "remediation.yaml"
STARTS = 1_795_700_000.0


class Mend:
    """An action that says in a list what it did."""

    name = "mend"
    summary = "mends what is broken"
    needs = frozenset({"node"})
    limits = Limits(verify_within=0.01)

    def __init__(self, ran: list[str], *, well: bool = True) -> None:
        self._ran = ran
        self._well = well

    def check(self, target: Target) -> Verdict:
        return Verdict(True, "broken")

    def run(self, target: Target) -> Outcome:
        self._ran.append(target.node)
        return Outcome(True, "mended")

    def verify(self, target: Target) -> Verdict:
        return Verdict(self._well, "whole" if self._well else "still broken")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    one = Mend(found)
    monkeypatch.setattr(catalog, "ACTIONS", {"mend": lambda _: one})
    monkeypatch.setattr(catalog, "NODE_ACCESS", {"none": lambda *_: None})
    monkeypatch.setattr("kproxy.monitoring.remediation.clock.time.time", lambda: STARTS + 5)
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        "journal: {directory: journal}\nnodeAccess: {kind: none}\n"
        "actions: {mend: {coolDown: 90s, runs: 5}}\n"
    )
    return path


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    path = tmp_path / "notification.json"
    alert = {
        "status": "firing",
        "fingerprint": "f",
        "startsAt": rfc3339.timestamp(STARTS),
        "labels": {"alertname": "Broken", "node": "n1", "remediation": "mend"},
    }
    path.write_text(json.dumps({"version": "4", "groupKey": "g", "alerts": [alert]}))
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(remediate, [str(word) for word in words], standalone_mode=False)


def test_one_notification_from_a_file(ran: list[str], config: Path, sent: Path) -> None:
    answer = call("--config", config, "--once", sent)
    assert (answer.exception, answer.return_value, ran) == (None, 0, ["n1"])
    assert "taken  f firing Broken n1  mend" in answer.stdout
    assert "helped" in answer.stdout
    again = call("--config", config, "--once", sent)
    assert (again.return_value, ran) == (0, ["n1"])
    assert "repeated" in again.stdout


def test_what_was_left_to_a_human_is_the_exit_code(
    ran: list[str], config: Path, sent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "ACTIONS", {"mend": lambda _: Mend(ran, well=False)})
    answer = call("--config", config, "--once", sent)
    assert (answer.return_value, ran) == (1, ["n1"])
    assert "ineffective, left to a human" in answer.stdout


def test_a_dry_run(ran: list[str], config: Path, sent: Path) -> None:
    answer = call("--config", config, "--dry-run", "--once", sent)
    assert (answer.return_value, ran) == (0, [])
    assert "would run mend" in answer.stdout


@pytest.mark.usefixtures("ran")
def test_a_file_that_is_no_notification(config: Path) -> None:
    answer = call("--config", config, "--once", config)
    assert isinstance(answer.exception, InvalidObject)


@pytest.mark.usefixtures("ran")
def test_actions_with_what_they_need_and_their_limits(config: Path) -> None:
    table = call("actions", "--config", config).stdout
    assert all(word in table for word in ("mend", "mends what is broken", "node", "5 in 1h0m0s"))
    row = json.loads(call("--config", config, "actions", "--json").stdout)
    assert (row["name"], row["coolDown"], row["needs"]) == ("mend", "1m30s", ["node"])


@pytest.mark.parametrize("more", ["", "kubeconfig: not-there.conf\n"])
def test_what_there_is_is_told_without_an_api_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: str
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = tmp_path / "config.yaml"
    names = ", ".join(f"{name}: {{}}" for name in catalog.ACTIONS)
    text = f"{more}journal: {{directory: journal}}\nactions: {{{names}}}\n"
    path.write_text(text)
    answer = call("actions", "--config", path, "--json")
    assert answer.exception is None
    told = {row["name"]: row["needs"] for row in map(json.loads, answer.stdout.splitlines())}
    assert set(told) == set(catalog.ACTIONS)
    assert told["restart-proxy"] == ["node"]
    directory = tmp_path / "journal"
    with Journal(directory, file_bytes=1000, files=2) as journal:
        journal.append(Started(at=STARTS, pid=1234))
    assert "pid 1234" in call("audit", "--config", path).stdout


@pytest.mark.usefixtures("ran")
def test_the_audit_log(config: Path, sent: Path) -> None:
    call("--config", config, "--once", sent)
    table = call("audit", "--config", config).stdout
    words = [line.split()[1] for line in table.splitlines() if line.lstrip().startswith("2026")]
    assert words == ["started", "taken", "began", "ran", "helped"]
    lines = call("audit", "--journal", config.parent / "journal", "--json").stdout.splitlines()
    kinds = [json.loads(line)["what"] for line in lines]
    assert kinds == ["started", "notified", "began", "ran", "ended"]


@pytest.mark.usefixtures("ran")
def test_what_others_wrote_is_shown_and_commands_no_terminal(config: Path, sent: Path) -> None:
    body = json.loads(sent.read_text())
    body["alerts"][0]["labels"] |= {"alertname": "[/x] [bold]B\x1b[2J", "remediation": "o\nther"}
    sent.write_text(json.dumps(body))
    once = call("--config", config, "--once", sent).stdout
    table = call("audit", "--config", config).stdout
    for told in (once, table):
        assert "f firing [/x] [bold]B?[2J n1" in told
        assert "o?ther" in told
        assert "\x1b" not in told


@pytest.mark.usefixtures("ran")
def test_a_summary_with_brackets_is_shown(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    monkeypatch.setattr(Mend, "summary", "mends [eth0] and [/dev/null]")
    assert "mends [eth0] and [/dev/null]" in call("actions", "--config", config).stdout


@pytest.mark.parametrize("words", [[], ["actions"], ["audit"]])
def test_without_a_configuration_it_says_so(words: list[str]) -> None:
    answer = call(*words)
    assert isinstance(answer.exception, UsageError)
    assert "--config" in str(answer.exception)


def test_the_default_configuration_names_every_action_and_every_field() -> None:
    settings = configuration.load(DEFAULT)
    assert set(settings.actions) == set(catalog.ACTIONS)
    default = configuration.Settings()
    differing = {
        name
        for name in settings.__struct_fields__
        if getattr(settings, name) != getattr(default, name)
    }
    assert differing == {"listen", "token_file", "actions"}
    text = DEFAULT.read_text()
    named = [*settings.__struct_encode_fields__, *settings.guards.__struct_encode_fields__]
    named += [*settings.journal.__struct_encode_fields__]
    named += configuration.ActionSettings.__struct_encode_fields__
    assert [name for name in named if name not in text] == []


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("listen: 1", "listen"),
        ("unknown: 1", ""),
        ("guards: {maxAge: 5}", "guards.maxAge"),
        ("guards: {maxAge: 0s}", "guards.maxAge"),
        ("guards: {unwellShare: 2}", "guards.unwellShare"),
        ("guards: {breaker: {failures: 0}}", "guards.breaker.failures"),
        ("actions: {mend: {runs: -1}}", "actions.mend.runs"),
        ("actions: {mend: {runs: 0}}", "actions.mend.runs"),
        ("actions: {mend: {coolDown: -1s}}", "actions.mend.coolDown"),
        ("actions: {good: {runs: 1}, mend: {runs: x}}", "actions.mend.runs"),
        ("actions: {mend: {coolDown: 5}}", "actions.mend.coolDown"),
        ("actions: {good: {}, mend: 1}", "actions.mend"),
        ("actions: {good: {}, mend: {typo: 1}}", "actions.mend"),
        ("actions: [mend]", "actions"),
        ("options: {a: x, b: 1}", "options.b"),
        ("nodeAccess: {options: {a: x, b: [1]}}", "nodeAccess.options.b"),
        ("tls: {certFile: a}", "tls.keyFile"),
        ("journal: {files: 1}", "journal.files"),
        ("divide: 0", "divide"),
        ("divide: .inf", "divide"),
    ],
)
def test_a_wrong_configuration_is_told(text: str, field: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        configuration.parse(text, "c.yaml", Path("/etc"))
    assert caught.value.field == field


def test_a_lab_divides_waits_and_not_work() -> None:
    text = "divide: 10\nguards: {maxAge: 100s}\nactions: {mend: {coolDown: 50s}}"
    settings = configuration.parse(text, "c.yaml", Path("/etc"))
    limits = settings.limits("mend", Limits(period=70.0, run_within=60.0))
    assert (limits.cool_down, limits.period, limits.run_within) == (5.0, 7.0, 60.0)
    assert (settings.guards.max_age, settings.guards.patience) == (10.0, 90.0)
    assert settings.limits("mend", Limits(verify_every=1.0)).verify_every == 0.2


def test_an_option_that_an_action_cannot_read_is_told(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    monkeypatch.setattr(catalog, "ACTIONS", {"mend": lambda tools: int(tools.options["port"])})
    monkeypatch.setattr(catalog, "OPTIONS", {"port"})
    monkeypatch.setattr(catalog, "NODE_ACCESS", {"none": lambda *_: None})
    config.write_text(config.read_text() + "options: {port: http}\n")
    error = call("actions", "--config", config).exception
    assert isinstance(error, InvalidObject)
    assert "options: mend cannot use them: " in str(error)
    assert "'http'" in str(error)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("options: {graceSecond: '1'}", "options.graceSecond"),
        ("nodeAccess: {kind: exec, options: {graceSeconds: '1'}}", "nodeAccess.options"),
    ],
)
def test_an_option_that_nobody_reads_is_a_mistake(text: str, field: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"actions: {{restart-proxy: {{}}}}\n{text}\n")
    error = call("actions", "--config", path).exception
    assert isinstance(error, InvalidObject)
    assert error.field.startswith(field)
    assert error.problem == "there is no such option"


def test_every_option_that_is_read_is_known_and_told_of() -> None:
    sources = Path(catalog.__file__).parent.glob("*.py")
    read = re.findall(r"options\.get\(\"(\w+)\"", "".join(one.read_text() for one in sources))
    assert set(read) == catalog.OPTIONS | catalog.ACCESS_OPTIONS
    told = (Path(__file__).parents[3] / "docs" / "remediation.md").read_text()
    assert [name for name in read if not re.search(rf"\b{name}\b", told)] == []


def test_actions_are_made_with_what_they_may_use(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    given: list[Tools] = []

    def make(tools: Tools) -> Mend:
        given.append(tools)
        return Mend([])

    monkeypatch.setattr(catalog, "ACTIONS", {"mend": make})
    monkeypatch.setattr(catalog, "OPTIONS", {"a"})
    monkeypatch.setattr(catalog, "NODE_ACCESS", {"none": lambda *_: threading})
    config.write_text(config.read_text() + "options: {a: b}\n")
    settings = configuration.load(config)
    service.configured_actions(settings, service.api_client(settings), Log("test"))
    assert (given[0].nodes, given[0].rest, given[0].options) == (threading, None, {"a": "b"})
    assert service.api_client(settings) is None


def test_as_a_pod_it_is_who_its_service_account_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    monkeypatch.setenv("KPROXY_SERVICEACCOUNT_DIR", str(tmp_path))
    given: list[Access] = []
    monkeypatch.setattr(service, "Rest", lambda access, **_: given.append(access))
    service.api_client(configuration.Settings())
    assert given[0].server == "https://[fd00::1]:6443"
    assert given[0].token_file == tmp_path / "token"


def test_a_pod_that_is_told_half_of_where_the_api_server_is_hears_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
    with pytest.raises(UsageError) as caught:
        service.api_client(configuration.Settings())
    assert str(caught.value) == (
        "no API server: KUBERNETES_SERVICE_HOST is set, and KUBERNETES_SERVICE_PORT is not "
        "(set both, as in a pod, or name a kubeconfig in the configuration)"
    )
