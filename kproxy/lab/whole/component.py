"""A part of a lab's control plane, started anew on its host: what remediation asks for by name.

    python -m kproxy.lab.whole.component --state-dir DIR --host HOST COMPONENT [--dry-run]

On a real cluster a kubelet runs these parts as static pods, or systemd does; in a lab the host's
init, which starts again who has ended. So one that runs is killed, and one that waits for the end
of a back-off, or is held down, is brought up. A dry run tells whether it is down, stopped, or well
as far as its process shows. Prints a :class:`kproxy.monitoring.nodecare.seen.Care`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import SIGKILL

from kproxy import errors
from kproxy.controlplane import manager, scheduler
from kproxy.lab import clusterfile
from kproxy.lab.site import Site
from kproxy.lab.whole.places import SITE_FILE, Places
from kproxy.lab.whole.processes import Processes
from kproxy.lab.whole.roles import Role
from kproxy.monitoring.nodecare import process, seen
from kproxy.monitoring.nodecare.seen import Care
from netns.errors import NetnsError
from netns.lab import Lab

NAME = "recreate-controller"
ROLES = {manager.NAME: Role.MANAGER, scheduler.NAME: Role.SCHEDULER}


def command(state_dir: Path) -> list[str]:
    """Return the words of the action's ``componentCommand``; with ``--dry-run``, of its look."""
    module = "kproxy.lab.whole.component"
    options = [f"--state-dir={state_dir}", "--host={node}", "{component}"]
    return [sys.executable, "-m", module, *options]


def look(processes: Processes, host: str, role: Role) -> Care:
    """Return what is wrong with a part, as far as its process shows."""
    one = processes.find(host, role)
    if one is None:
        return Care(care=NAME, node=host, dry_run=True, found=(f"{role} on {host} does not run",))
    state = process.state_of(one.pid)
    hangs = state in (process.State.STOPPED, process.State.ZOMBIE)
    found = (f"process {one.pid} is {state}",) if hangs else ()
    return Care(care=NAME, node=host, dry_run=True, found=found)


def recreate(processes: Processes, host: str, role: Role) -> Care:
    """Let a new process of a part start, at once."""
    found = look(processes, host, role).found
    one = processes.find(host, role)
    if one is not None:
        processes.kill(host, role, SIGKILL)
    processes.bring_up(host, role)
    done = f"SIGKILL to process {one.pid}" if one is not None else "brought up"
    return Care(care=NAME, node=host, found=found, done=(done,))


def main(arguments: Sequence[str]) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kproxy.lab.whole.component", description=__doc__
    )
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("component", choices=ROLES)
    options = parser.parse_args(arguments)
    try:
        with Lab.attach(options.state_dir) as lab:
            places = Places(lab.scratch, Site(clusterfile.load(lab.scratch / SITE_FILE)))
            processes = Processes(lab, places, (options.host,))
            role = ROLES[options.component]
            care = look if options.dry_run else recreate
            done = care(processes, options.host, role)
    except (errors.KproxyError, NetnsError) as error:
        print(error, file=sys.stderr)
        return 1
    print(seen.encode(done).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
