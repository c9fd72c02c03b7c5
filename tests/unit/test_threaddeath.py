"""How a program ends one of whose threads died, as a process of its own."""

import json
import subprocess
import sys

PROGRAM = """
import os, threading
from kproxy import threaddeath
from kproxy.logs import Log

threaddeath.ends_the_program(Log("program"), lambda name: name.startswith("needed"))

def die():
    barrier.wait()
    raise RuntimeError("a bug " + "of many words " * 1000)

{}
for name in names:
    threading.Thread(target=die, name=name).start()
barrier.wait()
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
"""


def ended(*lines: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format("\n".join(lines))
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_many_that_die_at_once_are_told_of_as_one() -> None:
    done = ended("names = [f'needed-{i}' for i in range(20)]", "barrier = threading.Barrier(21)")
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["level"], last["msg"]) == ("error", "thread died")
    assert last["thread"].startswith("needed-")


def test_those_that_are_not_needed_are_told_of_and_the_program_goes_on() -> None:
    done = ended("names = ['a', 'b']", "barrier = threading.Barrier(3)")
    assert done.returncode == 0
    assert done.stderr.count("Traceback") == 2
    assert "thread died" not in done.stderr
