"""Stands over one user script: drops its rights, and leaves nothing of it behind.

Run as a program of its own with nothing of kproxy, so that it starts at once. The first line of
its standard input says what to run (JSON); the rest of that pipe is its life line: when it closes,
because the script took too long or because the receiver died, all that the script started is
killed. It ends with the script's exit code, 128 and the signal if one ended it, or 125 if the
script could not be started.
"""

import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

NOT_STARTED = 125
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_AGAIN_S = 0.01
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the script that standard input names; return the exit code."""
    with os.fdopen(0, "rb", buffering=0, closefd=False) as life_line:
        job = json.loads(life_line.readline())
    # Whatever the script starts and abandons becomes our child, so that it can be found.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    warden = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _become(job, warden)
        except OSError as error:
            os.write(2, f"cannot run {job['argv'][0]}: {error.strerror or error}\n".encode())
        finally:
            os._exit(NOT_STARTED)
    code = _await(child)
    _kill_all()
    return code


def _await(child: int) -> int:
    """Wait for the script's end, or that of the life line; return the exit code."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(0, select.POLLIN | select.POLLHUP)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if ended in ready:
            status = os.waitid(os.P_PIDFD, ended, os.WEXITED)
            assert status is not None
            killed = status.si_code != os.CLD_EXITED
            return status.si_status + (128 if killed else 0)
        if not os.read(0, 4096):
            return 128 + signal.SIGKILL


def _become(job: dict[str, Any], warden: int) -> NoReturn:
    """Turn this process into the script. Raises OSError."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.umask(0o077)
    os.chdir("/")
    for name, most in job["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    if job["uid"] is not None:
        os.setgroups([])
        os.setresgid(job["gid"], job["gid"], job["gid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # After the change of user, which clears it.
    if os.getppid() != warden:
        raise OSError(errno.ESRCH, "nobody waits for it any more")
    os.execve(job["argv"][0], job["argv"], job["env"])  # noqa: S606  that there is no shell is the point


def _kill_all() -> None:
    """Kill every child, and those that become ours by that, until there are none."""
    while True:
        for child in _children():
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_AGAIN_S)


def _children() -> list[int]:
    """Return the processes whose parent this one is."""
    ours, found = str(os.getpid()), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold anything; what follows it may not.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[1] == ours:
                found.append(int(entry.name))
    return found


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main())
