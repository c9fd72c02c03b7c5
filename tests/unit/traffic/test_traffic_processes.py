"""What the processes make of their command lines and of what they are told."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kproxy.errors import UsageError
from kproxy.traffic import control, responder, tcp_client, udp_send


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def test_commands_come_in_pieces_and_end_with_the_input(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    commands = control.Commands(reading)
    os.write(writing, b'{"do": "start", "profile": "p"}\n{"do": "ma')
    assert commands.read() == [{"do": "start", "profile": "p"}]
    os.write(writing, b'rk"}\n\n[1]\n{"do": 5}\nhm\n')
    first, *wrong = commands.read()
    assert first == {"do": "mark"}
    assert [command["do"] for command in wrong] == ["?", "?", "?"]
    os.close(writing)
    assert commands.read() == [{"do": "quit"}]


@pytest.mark.parametrize("module", [udp_send, tcp_client])
def test_once_needs_a_profile_that_ends(
    module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = module.__name__.rpartition(".")[2]
    opened = udp_send.open_stream if module is udp_send else tcp_client.open_run
    assert control.main(program, opened, ["--once", str(tmp_path / "nowhere")]) == 2
    assert control.main(program, opened, ["--twice"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("nowhere: No such file or directory")
    assert said[1].startswith(f"{program}: usage: python -m kproxy.traffic.{program}")


def test_an_answer_to_nobody_is_no_error() -> None:
    command = [sys.executable, "-m", "kproxy.traffic.tcp_client"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b'{"do": "stop"}\n{"do": "stop"}\n')
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no port: give --tcp PORT or --udp PORT"),
        (["--tcp", "0"], "--tcp: '0' is not a whole number from 1 to 65535"),
        (["--udp=65536"], "--udp: '65536' is not"),
        (["--udp", "dns"], "--udp: 'dns' is not"),
        (["--tcp"], "--tcp: '' is not"),
        (["--tcp", "80", "--rate", "-1"], "--rate: '-1' is not"),
        (["--verbose", "80"], "--verbose: unknown option"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        responder.Options(arguments)


def test_options_may_be_given_several_times() -> None:
    options = responder.Options(["--tcp", "80", "--tcp=81", "--udp", "53", "--name", "demo/web-1"])
    assert (options.tcp, options.udp, options.name) == ([80, 81], [53], "demo/web-1")


def test_lines_are_answered_with_the_name() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = responder.Connection(ours)
        theirs.send(b"one\ntw")
        assert connection.exchange(b"pod", 1)
        theirs.send(b"o\n")
        assert connection.exchange(b"pod", 1)
        assert theirs.recv(100) == b"pod one\npod two\n"
        theirs.send(b"x" * (responder.LINE_LIMIT + 1))
        while connection.exchange(b"pod", 1):
            continue
        assert len(connection.incoming) > responder.LINE_LIMIT


def test_a_peer_that_has_gone_ends_the_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        theirs.close()
        assert not responder.Connection(ours).exchange(b"pod", 1)


def test_generators_and_responders_start_without_what_is_slow_to_import() -> None:
    code = (
        "import sys, kproxy.traffic.udp_send, kproxy.traffic.tcp_client, kproxy.traffic.responder;"
        "print(*{'numpy', 'scapy', 'yaml', 'random', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sniff", "eth0"], "--sniff: unknown option"),
        (["--sniff", "eth0:no"], "--sniff: 'no' is not a whole number from 1 to 1000"),
        (["--sctp", "0"], "--sctp: '0' is not a whole number"),
        (["--sniff", "no-such-interface:28"], "--sniff no-such-interface:28: "),
    ],
)
def test_a_responder_names_the_option_that_is_wrong(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert responder.main(words) == 2
    assert said in capsys.readouterr().err
