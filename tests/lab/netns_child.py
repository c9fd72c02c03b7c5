"""Programs that the tests of labs start (and kill): ``python netns_child.py NAME ARGUMENTS``."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import netns_samples as samples

from netns import journal, lab, link, namespace, sysctl

ASK = ("naming", "carrier_up", "addresses_usable")
"""Functions that change nothing; how often the last two ask depends on the kernel."""

P = ParamSpec("P")
T = TypeVar("T")


def build(state_dir: str, name: str, marker: str, fatal_step: str) -> None:
    """Build, fill, change and leave a lab, and die by SIGKILL before the given step."""
    steps = itertools.count()

    def counted(function: Callable[P, T]) -> Callable[P, T]:
        def step(*args: P.args, **kwargs: P.kwargs) -> T:
            if next(steps) == int(fatal_step):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return step

    for module in (link, namespace, sysctl):
        for attribute in list(vars(module)):
            function = getattr(module, attribute)
            if getattr(function, "__module__", "") == module.__name__ and attribute not in ASK:
                setattr(module, attribute, counted(function))
    # Each write of the journal is a step, too; this process is for that alone.
    journal.Journal.append = counted(journal.Journal.append)  # type: ignore[method-assign]
    with lab.Lab(samples.line(), name=name, state_dir=Path(state_dir)) as running:
        (running.scratch / "file").write_text("x")
        # A child of a child, in a process group and session of its own.
        os.environ.update(samples.mark(marker))
        running["left"].run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &"])
        running["right"].spawn(["sleep", "600"], stdout=subprocess.DEVNULL)
        host, cable = samples.pod("pod", "router", "10.0.0.1/32")
        running.add(host, links=[cable])
        running["pod"].spawn(["sleep", "600"], stdout=subprocess.DEVNULL)
        running.remove("pod")
    print(f"steps {next(steps)}", flush=True)


def pods(state_dir: str, node: str, first: str, count: str) -> None:
    """Attach, and add pods p<first>, p<first+1> … behind a node; remove every second one again."""
    numbers = range(int(first), int(first) + int(count))
    with lab.Lab.attach(Path(state_dir)) as attached:
        for number in numbers:
            host, cable = samples.pod(f"p{number}", node, f"10.0.0.{number}/32")
            attached.add(host, links=[cable])
        for number in numbers[1::2]:
            attached.remove(f"p{number}")


def hold(state_dir: str, name: str) -> None:
    """Own a lab until a signal comes."""
    with lab.signals_unwind(), lab.Lab(samples.line(), name=name, state_dir=Path(state_dir)):
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    {"build": build, "pods": pods, "hold": hold}[sys.argv[1]](*sys.argv[2:])
