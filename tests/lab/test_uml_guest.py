"""What a command in an embedded kernel sees, and what becomes of it: real boots, on the host."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from uml_runner import Runner, read_until, start_in_terminal, wait_until_clean

from netns.kernels import base

pytestmark = [
    pytest.mark.uml,
    pytest.mark.needs_tool("linux.uml"),
    pytest.mark.skipif(base.inside_guest(), reason="needs the host: boots embedded kernels"),
]
PYTHON = sys.executable


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """Run with a state directory of our own, and see that nothing is left at the end."""
    one = Runner(tmp_path / "state")
    yield one
    assert wait_until_clean(one) == []


def test_exit_code_and_streams_pass_through_unchanged(runner: Runner) -> None:
    code = (
        "import os, sys\n"
        "data = sys.stdin.buffer.read()\n"
        "sys.stdout.buffer.write(data[::-1])\n"
        "sys.stderr.buffer.write(b'E' + data)\n"
        "sys.exit(41 if [os.isatty(n) for n in range(3)] == [False] * 3 else 1)\n"
    )
    data = bytes(range(256)) * 1000
    done = runner.run(PYTHON, "-c", code, input=data)
    assert done.returncode == 41
    assert done.stdout == data[::-1]
    assert done.stderr == b"E" + data


def test_the_kernel_has_what_a_lab_needs(runner: Runner) -> None:
    script = """
        set -e
        uname -r; cat /proc/net/ip_vs >&2
        test "$KPROXY_GUEST" = uml
        ip -o link show lo | grep -q LOWER_UP
        ip netns add n && ip link add v0 type veth peer name v1 netns n
        ip link add name dum0 type dummy; ip link add name br0 type bridge
        tc qdisc add dev v0 root netem delay 1ms
        ip link add name mac0 link v0 type macvlan         # loaded when it is first used
        ipset create s hash:ip,port; ipvsadm -A -t 10.0.0.1:80 -s mh
        iptables-legacy -t nat -A POSTROUTING -m set --match-set s dst,dst -j MASQUERADE
        cat /proc/sys/net/netfilter/nf_conntrack_max
    """
    done = runner.run("sh", "-c", script)
    assert done.returncode == 0, done.stderr
    release, tracked = done.stdout.split()
    assert release.decode() != os.uname().release
    assert int(tracked) >= 262144
    assert b"IP Virtual Server" in done.stderr


def test_only_named_directories_can_be_written(runner: Runner, tmp_path: Path) -> None:
    results, other = tmp_path / "made" / "results", tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("readable")
    script = f"""
        cat {other}/file && echo big > {results}/result
        if touch {other}/x 2>/dev/null; then exit 9; fi
        if touch {Path(__file__).parent}/x 2>/dev/null; then exit 8; fi
        touch "$TMPDIR/x" /tmp/x-of-guest /run/x && pwd
    """
    done = runner.run("sh", "-c", script, options=["--writable", str(results)], cwd=other)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"readable{other}\n"
    assert (results / "result").read_text() == "big\n"
    assert not Path("/tmp/x-of-guest").exists()


def test_a_missing_program_is_named(runner: Runner) -> None:
    done = runner.run("no-such-program")
    assert done.returncode == 127
    assert b"no-such-program: No such file" in done.stderr


def test_signals_reach_the_command(runner: Runner) -> None:
    traps = "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM"
    script = f"{traps}; echo up; while :; do sleep 0.1; done"
    process = runner.start("sh", "-c", script)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    process.send_signal(signal.SIGUSR1)
    read_until(process.stdout.fileno(), b"usr1\n")
    process.send_signal(signal.SIGTERM)
    assert b"term\n" in process.communicate(timeout=60)[0]
    assert process.returncode == 3


def test_a_command_that_is_killed_ends_with_its_signal(runner: Runner) -> None:
    process = runner.start("sh", "-c", "echo up; exec sleep 1000")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT


def test_the_second_interrupt_kills_at_once(runner: Runner) -> None:
    process = runner.start(
        "sh", "-c", "trap 'echo first' INT; echo up; while :; do sleep 0.1; done"
    )
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    process.send_signal(signal.SIGINT)
    read_until(process.stdout.fileno(), b"first\n")
    process.send_signal(signal.SIGINT)
    assert b"interrupted" in process.communicate(timeout=60)[1]
    assert process.returncode == 130


def test_an_output_that_nobody_reads_ends_the_command(runner: Runner) -> None:
    process = runner.start("sh", "-c", "while echo line; do :; done; echo over >&2; exit 6")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"line\n")
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=60)
    assert process.returncode in (6, 128 + signal.SIGPIPE)


def window(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_a_terminal_is_a_terminal_with_its_size_and_keys(runner: Runner) -> None:
    code = (
        "import os, signal\n"
        "print([os.isatty(n) for n in range(3)], os.get_terminal_size(), flush=True)\n"
        "def resized(*_): print('now', os.get_terminal_size(), flush=True)\n"
        "signal.signal(signal.SIGWINCH, resized)\n"
        "print('ready', flush=True)\n"
        "while (line := input()) != 'end': print('<' + line + '>', flush=True)\n"
        "try:\n"
        "    print('waiting', flush=True); signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True); raise SystemExit(12)\n"
    )
    pid, terminal = start_in_terminal(runner, PYTHON, "-c", code)
    window(terminal, 30, 100)
    first = read_until(terminal, b"ready")
    assert b"[True, True, True]" in first
    window(terminal, 41, 133)
    os.kill(pid, signal.SIGWINCH)
    read_until(terminal, b"now os.terminal_size(columns=133, lines=41)")
    os.write(terminal, b"typed\r")
    read_until(terminal, b"<typed>\r\n")
    os.write(terminal, b"end\r")
    read_until(terminal, b"waiting")
    before = termios.tcgetattr(terminal)[3]
    assert not before & termios.ICANON, "keys are to be passed on one by one"
    os.write(terminal, b"\x03")
    read_until(terminal, b"interrupted")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 12
    assert termios.tcgetattr(terminal)[3] & termios.ICANON, "the terminal is as it was"
    os.close(terminal)


def test_the_time_limit_asks_before_it_kills(runner: Runner) -> None:
    script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    done = runner.run("sh", "-c", script, options=["--time-limit", "16s"])
    assert done.returncode == base.EXIT_TIME_LIMIT
    assert done.stdout == b"up\nasked\n"
    assert b"time limit of 16 s" in done.stderr


def test_a_kernel_that_crashes_is_explained(runner: Runner) -> None:
    process = runner.start("sh", "-c", "echo up; read go; echo c > /proc/sysrq-trigger; sleep 99")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    _, said = process.communicate(b"go\n", timeout=60)
    assert process.returncode == base.EXIT_GUEST_FAILED
    first, *rest = said.decode().splitlines()
    assert "panicked: sysrq triggered crash" in first
    assert any("console: Kernel panic" in line for line in rest)


def test_a_kernel_whose_processes_are_killed_is_no_hang(runner: Runner) -> None:
    process = runner.start("sh", "-c", "echo up; exec sleep 1000")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    os.kill(min(runner.processes()), signal.SIGKILL)  # the kernel itself, on the host
    _, said = process.communicate(timeout=60)
    assert process.returncode == base.EXIT_GUEST_FAILED
    assert b"it ended without telling why" in said


def test_want_of_memory_is_explained(runner: Runner) -> None:
    code = "x = []\nwhile True: x.append(bytearray(b'x' * 1000000))"
    done = runner.run(PYTHON, "-c", code)
    assert done.returncode == 128 + signal.SIGKILL
    assert re.search(rb"used up its 256 MiB and killed python\S* \(.*--memory", done.stderr)


def test_bad_usage_is_one_line(runner: Runner) -> None:
    done = runner.run("true", options=["--memory", "some"])
    assert done.returncode == 2
    assert b"'some' is not an amount of memory" in done.stderr


def test_an_ordinary_user_is_root_inside_and_no_more_than_before(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    if subprocess.run(["runuser", "-u", "nobody", "--", PYTHON, "-c", ""], check=False).returncode:
        pytest.skip("the user nobody cannot read this checkout")
    state = Path(f"/tmp/kproxy-test-{os.getpid()}")
    state.mkdir()
    try:
        os.chown(state, 65534, 65534)
        runner = Runner(state, prefix=["runuser", "-u", "nobody", "--"])
        script = f"id -u; cat /proc/net/ip_vs; echo x > {state}/out/file; cat /etc/shadow"
        options = ["--writable", f"{state}/out"]
        done = runner.run("sh", "-c", script, options=options)
        assert done.stdout.startswith(b"0\nIP Virtual Server"), done.stderr
        assert done.returncode != 0
        assert b"/etc/shadow: Permission denied" in done.stderr
        assert (state / "out" / "file").stat().st_uid == 65534
        assert wait_until_clean(runner) == []
    finally:
        subprocess.run(["rm", "-rf", state], check=True)
