"""Commands through the door of a lab: bytes, exit codes, terminals, signals, ends."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy import errors
from kproxy.lab.clusterfile import ClusterFile
from kproxy.lab.door import client, messages, owner
from kproxy.lab.door.conversation import Conversation
from kproxy.lab.door.directory import LabDirectory, every
from netns.process import ProcessId
from netns.wait import wait_until

PATIENCE = 60.0
DOOR = [sys.executable, str(Path(__file__).with_name("fake_door.py"))]
OWNER = """
import sys
from pathlib import Path
from kproxy.lab.clusterfile import ClusterFile
from kproxy.lab.door import messages, owner
from kproxy.lab.door.directory import LabDirectory
directory = LabDirectory(Path(sys.argv[1]))
def tell(text): print(text, flush=True)
keeper = owner.Keeper(directory, progress=tell, ready=lambda report: tell(str(report.problems)))
with directory.taken("a kernel", "real"):
    keeper.run(sys.argv[2:], messages.Job(file=ClusterFile()))
"""
CLIENT = """
import sys
from pathlib import Path
from kproxy.lab.door import client, messages
from kproxy.lab.door.directory import LabDirectory
start = messages.Start(host="node1", argv=sys.argv[2:])
sys.exit(client.attach(LabDirectory(Path(sys.argv[1])), start))
"""

KUBECTL = """
import sys
from pathlib import Path
from kproxy.cli import lab_commands
from kproxy.cli.main import main
from kproxy.lab.door.directory import LabDirectory
from netns.kernels import base
enter = lab_commands.enter
base.find_program = lambda name: name
root, *words = sys.argv[1:]
lab_commands.find = lambda place, name: LabDirectory(Path(root))
script = "trap 'exit 9' INT; cat; echo; echo $*; sleep 1000 & wait"
lab_commands.enter = lambda at, host, argv: enter(at, "node1", ["sh", "-c", script, *argv])
sys.argv[1:] = ["lab", "kubectl", *words]
sys.exit(main())
"""
"""kubectl in a lab, in whose place is what prints its input and its words, and does not end."""


class Open:
    """A lab's owner as a process, its door behind it."""

    def __init__(self, root: Path) -> None:
        self.directory = LabDirectory(root / "demo")
        self.gone = root / "gone"
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(self.directory.root), *DOOR],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "FAKE_DOOR_GONE": str(self.gone)},
        )
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline().strip() for _ in range(2)]

    def run(self, *argv: str, data: bytes = b"", host: str = "node1") -> client.Output:
        return client.capture(self.directory, messages.Start(host=host, argv=list(argv)), data)

    def attach(self, *argv: str) -> list[str]:
        """Return the command that runs a command with its own streams."""
        return [sys.executable, "-c", CLIENT, str(self.directory.root), *argv]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    made = Open(tmp_path_factory.mktemp("labs"))
    yield made
    made.close()


def test_progress_and_what_was_refused_are_told(lab: Open) -> None:
    assert lab.said == ["starting", "['Service a/b: is wrong']"]


def test_bytes_and_exit_code_pass_unchanged_and_streams_stay_apart(lab: Open) -> None:
    data = bytes(range(256)) * 2000
    done = lab.run("sh", "-c", "cat; echo apart >&2; exit 41", data=data)
    assert (done.code, done.stdout, done.stderr) == (41, data, b"apart\n")
    assert lab.run("sh", "-c", "kill -9 $$").code == 128 + 9
    assert lab.run("true").stdout == b""


def test_a_command_that_is_not_there_is_127(lab: Open) -> None:
    done = lab.run("/nowhere/at/all")
    assert done.code == 127
    assert b"No such file" in done.stderr


def test_many_commands_at_once_do_not_mix(lab: Open) -> None:
    found: dict[int, bytes] = {}

    def one(number: int) -> None:
        done = lab.run("sh", "-c", f"for i in $(seq 2000); do echo {number}-$i; done")
        found[number] = done.stdout

    for _ in range(10):
        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(8):
        wanted = "".join(f"{number}-{i}\n" for i in range(1, 2001))
        assert found[number] == wanted.encode()


def test_a_reader_that_does_not_read_holds_up_nobody_else(lab: Open) -> None:
    with subprocess.Popen(lab.attach("yes"), stdout=subprocess.PIPE) as lazy:
        assert lazy.stdout is not None
        assert lazy.stdout.read(2) == b"y\n"
        done = lab.run("seq", "100000")
        assert done.stdout.count(b"\n") == 100_000
        lazy.stdout.close()  # and now nobody reads any more: `yes` ends by SIGPIPE
        assert lazy.wait(PATIENCE) == 128 + signal.SIGPIPE


def test_who_has_inherited_the_output_is_not_waited_for(lab: Open) -> None:
    done = lab.run("sh", "-c", "sleep 1000 & echo $!")
    assert done.code == 0
    os.kill(int(done.stdout), signal.SIGKILL)


def test_an_unknown_host_is_refused_with_those_there_are(lab: Open) -> None:
    with pytest.raises(errors.UsageError, match=r"no host 'nowhere'.*there are: node1"):
        lab.run("true", host="nowhere")
    with pytest.raises(errors.UsageError, match="no container of pod shop/none runs now"):
        lab.run("true", host="shop/none")


def test_a_terminal_here_is_one_there_with_its_keys_and_size(lab: Open) -> None:
    master, slave = pty.openpty()
    words = lab.attach("sh", "-c", "stty -echo; stty size; tty; read word; echo got $word; exit 5")
    os.set_blocking(master, True)
    subprocess.run(["stty", "-F", os.ttyname(slave), "rows", "33", "cols", "77"], check=True)
    process = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    text = read_until(master, b"/dev/pts/")
    assert b"33 77" in text
    os.write(master, b"hello\r")
    assert b"got hello" in read_until(master, b"got hello")
    assert process.wait(PATIENCE) == 5
    os.close(master)


def test_a_signal_to_the_client_reaches_the_command(lab: Open) -> None:
    words = lab.attach("sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; sleep 1000 & wait")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"caught\n"
        assert process.wait(PATIENCE) == 9


def test_what_kubectl_says_of_a_file_that_it_watches_comes_at_once(
    lab: Open, tmp_path: Path
) -> None:
    path = tmp_path / "web.yaml"
    path.write_text("kind: Pod")
    words = [sys.executable, "-c", KUBECTL, str(lab.directory.root), "get", "-w", "-f", str(path)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kind: Pod\n"
        assert process.stdout.readline() == b"get -w -f -\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 9


def test_a_command_whose_client_was_killed_is_hung_up(lab: Open) -> None:
    words = lab.attach("sh", "-c", "echo $$; exec sleep 1000")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        identity = ProcessId.of(pid)
        assert identity is not None
        process.kill()
    wait_until(lambda: not identity.alive, PATIENCE, "the end of sleep")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_the_lab_away_and_its_directory(tmp_path: Path, number: int) -> None:
    made = Open(tmp_path)
    assert [one.name for one in every(tmp_path) if one.owner()] == ["demo"]
    made.process.send_signal(number)
    assert made.process.wait(PATIENCE) == 0
    made.close()
    assert made.gone.read_text() == "taken away"
    assert not made.directory.root.exists()
    with pytest.raises(errors.UsageError, match="lab demo is not up"):
        made.run("true")


def test_down_ends_a_lab_and_repairs_a_dead_one(tmp_path: Path) -> None:
    made = Open(tmp_path)
    assert made.directory.take_down()
    assert made.process.wait(PATIENCE) == 0
    made.close()
    assert not made.directory.take_down()
    dead = Open(tmp_path)
    dead.close()  # SIGKILL
    wait_until(dead.gone.exists, PATIENCE, "the door to see that its owner is gone")
    assert dead.directory.root.exists()
    assert dead.directory.take_down()
    assert not dead.directory.root.exists()


def test_of_one_name_there_is_one_lab(lab: Open) -> None:
    with (
        pytest.raises(errors.UsageError, match="lab demo is up already"),
        lab.directory.taken("another", "real"),
    ):
        pass
    assert lab.run("true").code == 0


@pytest.mark.parametrize(
    ("how", "message", "code"),
    [("refuse", "there is no room", 1), ("die", "the lab has ended by itself", 125)],
)
def test_why_there_is_no_lab_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str, code: int
) -> None:
    monkeypatch.setenv("FAKE_DOOR", how)
    monkeypatch.setenv("FAKE_DOOR_GONE", str(tmp_path / "gone"))
    directory = LabDirectory(tmp_path / "demo")
    keeper = owner.Keeper(directory, progress=lambda _: None, ready=lambda _: None)
    with pytest.raises(owner.Ended, match=message) as caught, directory.taken("one", "real"):
        keeper.run(DOOR, messages.Job(file=ClusterFile()))
    assert caught.value.code == code


def test_commands_end_with_the_lab(tmp_path: Path) -> None:
    made = Open(tmp_path)
    words = made.attach("sh", "-c", "echo ready; exec sleep 1000")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        made.process.terminate()
        assert made.process.wait(PATIENCE) == 0
        assert process.wait(PATIENCE) == 1
    made.close()


def read_until(descriptor: int, wanted: bytes) -> bytes:
    text = b""
    while wanted not in text:
        assert select.select([descriptor], [], [], PATIENCE)[0], text
        text += os.read(descriptor, 4096)
    return text


def conversation(lab: Open, script: str) -> Conversation:
    return Conversation(lab.directory, messages.Start(host="", argv=["sh", "-c", script]))


ECHO = 'while read -r line; do echo "you said $line"; done'


def test_a_command_that_is_kept_answers_line_by_line_and_long_ones(lab: Open) -> None:
    with contextlib.closing(conversation(lab, ECHO)) as one:
        assert one.ask(b"one", PATIENCE) == b"you said one"
        assert one.ask(b"two", PATIENCE) == b"you said two"
        long = b"x" * (3 * messages.CREDIT)
        assert one.ask(long, PATIENCE) == b"you said " + long


def test_a_kept_command_ends_when_it_is_let_go(lab: Open, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    script = f"trap 'touch {gone}; exit' EXIT HUP; {ECHO}"
    one = conversation(lab, script)
    assert one.ask(b"there", PATIENCE) == b"you said there"
    one.close()
    wait_until(gone.exists, PATIENCE, "the command to end")
    with pytest.raises(client.Lost):
        one.ask(b"still there", PATIENCE)


def test_a_kept_command_that_ends_by_itself_says_why(lab: Open) -> None:
    with contextlib.closing(
        conversation(lab, "read line; echo first; echo why >&2; exit 3")
    ) as one:
        assert one.ask(b"one", PATIENCE) == b"first"
        with pytest.raises(client.Lost, match=r"^why$"):
            one.ask(b"two", PATIENCE)
        one.wait_end()


def test_an_answer_that_does_not_come_is_not_waited_for(lab: Open) -> None:
    with contextlib.closing(conversation(lab, "read line; exec sleep 1000")) as one:
        with pytest.raises(errors.KproxyError, match="does not answer"):
            one.ask(b"one", 0.01)
        with pytest.raises(client.Lost):  # nobody could tell which answer the next one is
            one.ask(b"two", PATIENCE)


def test_who_waits_for_an_answer_is_woken_when_it_is_let_go(lab: Open) -> None:
    one = conversation(lab, "read line; exec sleep 1000")
    told: list[BaseException] = []

    def ask() -> None:
        try:
            one.ask(b"one", PATIENCE)
        except errors.KproxyError as error:
            told.append(error)

    asking, waiting = threading.Thread(target=ask), threading.Thread(target=one.wait_end)
    for thread in (asking, waiting):
        thread.start()
    one.close()
    for thread in (asking, waiting):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [type(error) for error in told] == [client.Lost]
