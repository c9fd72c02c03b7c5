"""Commands in virtual time: what they see, that runs are the same, who ends a spinner."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from uml_runner import Runner, read_until, wait_until_clean

from netns.kernels import base, registry


def no_virtual_clock() -> bool:
    """Tell whether no kernel with a virtual clock is at hand (``uml`` takes the preferred one)."""
    kernel = registry.preferred()
    return kernel is None or base.Clock.VIRTUAL not in kernel.clocks


pytestmark = [
    pytest.mark.uml,
    pytest.mark.skipif(base.inside_guest(), reason="needs the host: boots embedded kernels"),
    pytest.mark.skipif(
        no_virtual_clock(), reason="no kernel with a virtual clock: scripts/install --kernel"
    ),
]
PYTHON = sys.executable
VIRTUAL = ("--clock", "virtual")
SPIN = "while True: pass"


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """Run with a state directory of our own, and see that nothing is left at the end."""
    one = Runner(tmp_path / "state")
    yield one
    assert wait_until_clean(one) == []


@pytest.fixture
def hogs() -> Iterator[None]:
    """Keep two CPUs busy."""
    hogs = [subprocess.Popen([PYTHON, "-c", SPIN]) for _ in range(2)]
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


def test_waiting_costs_nothing_and_the_wall_clock_is_pinned(runner: Runner) -> None:
    code = (
        "import datetime, os, time\n"
        "print(os.environ['KPROXY_CLOCK'], os.environ['KPROXY_SEED'])\n"
        "time.sleep(86400)\n"
        "print(datetime.datetime.now(datetime.UTC).strftime('%F'), time.monotonic() >= 86400)\n"
    )
    done = runner.run(PYTHON, "-c", code, options=VIRTUAL)
    assert done.stdout.decode() == "virtual 1\n2026-01-02 True\n", done.stderr


def test_computing_takes_no_time_but_under_travel_it_does(runner: Runner) -> None:
    code = (
        "import time\n"
        "before, used = time.monotonic(), time.process_time()\n"
        "sum(range(20_000_000))\n"
        "print(time.monotonic() - before)\n"
    )
    virtual, travel = (
        float(runner.run(PYTHON, "-c", code, options=("--clock", clock)).stdout)
        for clock in ("virtual", "travel")
    )
    assert virtual < 0.001 < travel


CHANCES = """
import os, random, socket, subprocess, time, uuid
for _ in range(100):
    time.sleep(0.001)
for _ in range(3):
    subprocess.run(["true"])
with socket.create_server(("127.0.0.1", 0)) as server:
    for _ in range(3):
        with socket.create_connection(server.getsockname()) as one:
            print(one.getsockname())
print(uuid.uuid4(), random.random(), hash("x"), id(object()), os.getpid())
print(open("/proc/stat").read().split("ctxt")[1], time.monotonic_ns(), time.time_ns())
print(open("/proc/interrupts").read())
time.sleep(90)  # until the kernel has stirred its random numbers anew
print(uuid.uuid4(), time.monotonic_ns())
"""


@pytest.mark.usefixtures("hogs")
def test_the_same_seed_is_the_same_run(runner: Runner) -> None:
    runs = []
    for number in range(3):
        with contextlib.ExitStack() as files:  # beside others that come and go there
            for _ in range(number * 3):
                files.enter_context(tempfile.NamedTemporaryFile(dir="/tmp"))
            runs.append(runner.run(PYTHON, "-c", CHANCES, options=VIRTUAL).stdout)
    assert len(runs[0].splitlines()) > 8
    assert runs[1:] == runs[:1] * 2


def test_another_seed_is_another_run(runner: Runner) -> None:
    one, other = (
        runner.run(PYTHON, "-c", CHANCES, options=(*VIRTUAL, "--seed", seed)).stdout.splitlines()
        for seed in ("1", "2")
    )
    assert one[:3] != other[:3]  # ports
    assert one[3].split()[:3] != other[3].split()[:3]


def test_streams_pass_unchanged(runner: Runner) -> None:
    code = (
        "import sys\n"
        "data = sys.stdin.buffer.read()\n"
        "sys.stdout.buffer.write(data * 40)\n"
        "sys.stderr.buffer.write(b'E' + data)\n"
        "sys.exit(41)\n"
    )
    data = bytes(range(256)) * 1000
    done = runner.run(PYTHON, "-c", code, options=VIRTUAL, input=data)
    assert done.returncode == 41
    assert done.stdout == data * 40
    assert done.stderr == b"E" + data


def test_a_file_is_standard_input(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text("first\nsecond\n")
    with file.open("rb", buffering=0) as stream:
        stream.seek(6)
        done = runner.run("cat", options=VIRTUAL, stdin=stream)
    assert done.stdout == b"second\n"


def test_signals_reach_the_command(runner: Runner) -> None:
    script = "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    process = runner.start("sh", "-c", script, options=VIRTUAL)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    process.terminate()
    assert b"term\n" in process.communicate(timeout=60)[0]
    assert process.returncode == 3


def test_who_spins_is_ended_and_named(runner: Runner) -> None:
    options = (*VIRTUAL, "--stall", "2s")
    script = f"sleep 7; {PYTHON} -c '{SPIN}' --with words; echo not reached"
    done = runner.run("sh", "-c", script, options=options)
    assert done.returncode == base.EXIT_GUEST_FAILED
    assert done.stdout == b""
    said = done.stderr.decode()
    assert "its clock has stood still at 7.0" in said
    assert f"({PYTHON} -c {SPIN} --with words)" in said
    assert "--stall, now 2 s" in said


def test_a_process_that_was_forked_is_named_too(runner: Runner) -> None:
    code = f"import os\nif os.fork() == 0:\n    {SPIN}\nos.wait()"
    # Its words are seen where they share a page of its stack with what it has touched since it was
    # forked; with a long environment between them there is only its name.
    command = ("env", "-i", PYTHON, "-c", code)
    # Booting and starting Python take CPU time at the same virtual time, too.
    done = runner.run(*command, options=(*VIRTUAL, "--stall", "15s"))
    assert done.returncode == base.EXIT_GUEST_FAILED
    assert "if os.fork() == 0" in done.stderr.decode()


@pytest.mark.usefixtures("hogs")
def test_who_polls_the_clock_is_ended_and_named(runner: Runner) -> None:
    code = "import time\nwhile True: time.monotonic()"
    done = runner.run(PYTHON, "-c", code, options=(*VIRTUAL, "--stall", "2s"))
    assert done.returncode == base.EXIT_GUEST_FAILED
    said = done.stderr.decode()
    assert "its clock has only crept" in said
    assert f"({PYTHON} -c import time while True: time.monotonic())" in said


@pytest.mark.parametrize(
    ("clock", "code", "seen"),
    [
        ("virtual", "import signal\nsignal.pause()", "all its processes sleep"),
        ("travel", SPIN, f"({PYTHON} -c {SPIN}) runs"),
    ],
)
def test_the_time_limit_tells_what_the_guest_did(
    runner: Runner, clock: str, code: str, seen: str
) -> None:
    options = ("--clock", clock, "--time-limit", "16s")
    done = runner.run(PYTHON, "-c", code, options=options)
    assert done.returncode == base.EXIT_TIME_LIMIT
    assert f"the time limit of 16 s is over; at that moment {seen}" in " ".join(
        done.stderr.decode().replace(f"{Path(sys.executable).name} (", "(").split()
    )


@pytest.mark.usefixtures("hogs")
def test_honest_computing_is_not_ended_on_a_loaded_machine(runner: Runner) -> None:
    code = (
        "import time\n"
        "for _ in range(40):\n"
        "    sum(range(8_000_000))\n"
        "    time.sleep(0.001)\n"
        "print('done')\n"
    )
    done = runner.run(PYTHON, "-c", code, options=(*VIRTUAL, "--stall", "3s"))
    assert done.stdout == b"done\n", done.stderr


def test_long_computing_may_be_declared(runner: Runner) -> None:
    work = "sum(range(600_000_000))"  # some seconds
    undeclared = runner.run(PYTHON, "-c", work, options=(*VIRTUAL, "--stall", "1s"))
    assert undeclared.returncode == base.EXIT_GUEST_FAILED
    code = f"from netns.kernels import base\nwith base.computing(300):\n    {work}\nprint('done')"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    declaring = Runner(runner.state, environment=environment)
    done = declaring.run(PYTHON, "-c", code, options=(*VIRTUAL, "--stall", "1s"))
    assert done.stdout == b"done\n", done.stderr


def test_output_that_nobody_reads_does_not_hold_up_the_guest(runner: Runner) -> None:
    """Its clock would run on meanwhile, and how far would depend on the reader."""
    code = (
        "import sys, time\n"
        "sys.stdout.write('x' * 5_000_000); sys.stdout.flush()\n"
        "print(time.monotonic_ns(), file=sys.stderr)\n"
    )
    prompt = runner.run(PYTHON, "-c", code, options=VIRTUAL)
    process = subprocess.Popen(
        runner.argv([PYTHON, "-c", code], VIRTUAL),
        env=runner.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    late = read_until(process.stderr.fileno(), b"\n")  # before anything of the output is read
    assert late == prompt.stderr
    assert len(process.stdout.read()) == 5_000_000
    assert process.wait(timeout=60) == 0
    process.stdout.close()
    process.stderr.close()


def test_a_comparison_is_reproduced_to_the_last_digit(tmp_path: Path) -> None:
    compare = (PYTHON, "-m", "kproxy", "compare", "--kernel", "uml")
    few = ("--trials", "1", "--modes", "iptables")
    scenarios = ("--scenario", "baseline", "--scenario", "endpoint-crash")
    first, second = tmp_path / "first", tmp_path / "a-second"
    done = subprocess.run(
        [*compare, *few, *scenarios, *VIRTUAL, "--out", first], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    again = ("--reproduce", first / "result.json", "--out", second)
    done = subprocess.run([*compare, *again], capture_output=True, text=True)
    assert "reproduced: all 12 rows" in done.stdout, done.stdout
    assert done.returncode == 0, done.stderr
