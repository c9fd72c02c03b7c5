"""What the command lines of ``kproxy measure`` and ``kproxy trace`` refuse, and in which words."""

from pathlib import Path
from typing import Any

import click.testing
import pytest

from kproxy.cli import lab_commands, measure_attention, measure_places, measure_send
from kproxy.cli.main import cli
from kproxy.errors import InvalidObject, UsageError
from kproxy.lab.door.directory import LabDirectory
from kproxy.traffic.remote.terms import Probe

GOOD: dict[str, Any] = {
    "to": "10.96.0.10:53",
    "interface": "eth1",
    "receiver": "far",
    "token": "t",
    "probe": None,
    "query": "a.b",
    "rate": 1000.0,
    "flows": 16,
    "source_port": 40000,
    "size": 32,
    "seconds": 10.0,
    "tmax": 2.0,
    "timestamps": "auto",
    "yes_use_default_route": False,
}


def checked(**changes: Any) -> measure_send.Asked:
    return measure_send._checked(**GOOD | changes)


def test_what_is_asked_for_is_taken() -> None:
    asked = checked(seconds=0.0, to="[fd00::1]:80")
    assert (str(asked.stream.destination), asked.stream.port) == ("fd00::1", 80)
    assert asked.stream.packets is None
    assert checked().stream.packets == 10_000
    ping = checked(receiver="", probe="icmp", to="10.0.0.1", flows=99)
    assert (ping.probe, ping.stream.flows) == (Probe.ICMP, 1)
    assert checked(receiver="", probe="dns", to="fd00::a").stream.port == 53


def test_a_connection_counts_as_lost_before_the_kernel_tries_again() -> None:
    assert checked(tmax=None).stream.tmax_s == 2
    assert checked(tmax=None, receiver="", probe="tcp").stream.tmax_s < 1
    assert checked(tmax=1.5, receiver="", probe="tcp").stream.tmax_s == 1.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"receiver": ""}, "either --receiver or --probe"),
        ({"probe": "tcp"}, "either --receiver or --probe"),
        ({"interface": ""}, "--receiver needs --interface"),
        ({"token": ""}, "--receiver needs --token"),
        ({"rate": 0.0}, "--rate 0"),
        ({"rate": float("nan")}, "--rate nan"),
        ({"rate": 1e9}, "--rate 1e+09"),
        ({"seconds": -1.0}, "--seconds -1"),
        ({"receiver": "", "probe": "tcp", "timestamps": "hardware"}, "are stamped by the kernel"),
        ({"tmax": 0.0}, "--tmax 0"),
        ({"rate": 0.01}, "--seconds 10 at --rate 0.01: that is not one packet"),
        ({"source_port": 65530}, "16 flows end beyond port 65535"),
        ({"to": "dns.example:53"}, "'dns.example' is not an IP address"),
        ({"to": "10.0.0.1"}, "--to '10.0.0.1'"),
        ({"to": "10.0.0.1:99999"}, "'99999' is not a port"),
        ({"to": "fd00::1:80"}, "IPv6 as [ADDRESS]:PORT"),
        ({"token": "@/nowhere"}, "--token @/nowhere: No such file"),
    ],
)
def test_what_cannot_be_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as told:
        checked(**changes)
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("far", ("far", 7890)),
        ("10.0.0.1:5", ("10.0.0.1", 5)),
        ("fd00::1", ("fd00::1", 7890)),
        ("[fd00::1]", ("fd00::1", 7890)),
        ("[fd00::1]:5", ("fd00::1", 5)),
    ],
)
def test_where_a_receiver_is_may_be_written_in_many_ways(
    text: str, place: tuple[str, int]
) -> None:
    assert measure_places.split(text, "--receiver", 7890) == place


@pytest.mark.parametrize("text", ["x", ":x", ":-1", ":70000", ""])
def test_a_control_place_needs_a_port(text: str) -> None:
    with pytest.raises(UsageError, match="--control"):
        measure_places.control_place(text, "--control")
    assert measure_places.control_place("[::1]:0", "--control") == ("::1", 0)


def test_a_token_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" secret\n")
    assert measure_places.read_token(f"@{tmp_path / 'token'}") == "secret"
    (tmp_path / "token").write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        measure_places.read_token(f"@{tmp_path / 'token'}")


def test_marks_are_made_by_signals_that_are_free() -> None:
    assert measure_attention.mark_signal("sigusr1").name == "SIGUSR1"
    with pytest.raises(UsageError, match="--mark-on 'SIGKILL'"):
        measure_attention.mark_signal("SIGKILL")


def invoke(*words: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli, words, standalone_mode=False)


def test_a_profile_gives_defaults_and_the_command_line_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profile.yaml").write_text(
        "to: 10.96.0.10:80\nprobe: tcp\nrate: 50\nsource-port: 1234\n"
    )
    seen: list[measure_send.Asked] = []

    def take(asked: measure_send.Asked, attention: object) -> None:
        seen.append(asked)
        raise UsageError("enough")

    monkeypatch.setattr(measure_send, "_take", take)
    words = ["measure", "send", "--profile", str(tmp_path / "profile.yaml")]
    words += ["--rate", "70", "--out", str(tmp_path)]
    assert "enough" in str(invoke(*words).exception)
    (asked,) = seen
    assert (asked.probe, asked.stream.rate_pps, asked.stream.first_port) == (Probe.TCP, 70, 1234)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rates: 5", "rates: no such option"),
        ("token: secret", "token: no such option"),
        ("- a", "is not a mapping"),
        ("rate: fast", "'fast' is not a valid float"),
    ],
)
def test_a_profile_that_is_wrong_is_told_with_its_field(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    told = invoke("measure", "send", "--profile", str(path), "--to", "10.0.0.1:80").exception
    assert isinstance(told, UsageError | InvalidObject | click.ClickException)
    text = told.format_message() if isinstance(told, click.ClickException) else str(told)
    assert words in text


def test_in_a_lab_the_trace_runs_on_the_labs_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[tuple[str, list[str]]] = []

    def enter(directory: LabDirectory, host: str, argv: list[str]) -> int:
        entered.append((host, argv[1:]))
        return 1

    monkeypatch.setattr(lab_commands, "enter", enter)
    words = ["10.96.0.10:53/udp", "--lab", "--name", "shop", "--state-dir", str(tmp_path)]
    result = invoke("trace", *words, "--from", "demo/front-1", "--timeout", "1.5", "--json")
    assert (result.exception, result.return_value) == (None, 1)
    ((host, argv),) = entered
    assert host == ""
    assert " ".join(argv) == (
        "-m kproxy trace 10.96.0.10:53/udp --prefix shop- --from demo-front-1 --timeout 1.5 --json"
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["10.0.0.1"], "target '10.0.0.1'"),
        (["10.0.0.1:80/sctp"], "protocol 'sctp' cannot be traced"),
        (["10.0.0.1:80", "--timeout", "0"], "--timeout 0"),
        (["10.0.0.1:80/udp", "--request", "x"], "--request goes over TCP"),
        (["10.0.0.1:80", "--from", "no-such-namespace"], "there is no such network namespace"),
        (["10.0.0.1:80", "--from", "pid:0"], "there is no such network namespace"),
    ],
)
def test_a_trace_that_cannot_be_made_is_refused(words: list[str], complaint: str) -> None:
    told = invoke("trace", *words).exception
    assert isinstance(told, UsageError)
    assert complaint in str(told)
