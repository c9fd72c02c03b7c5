"""Running a user script: no shell, another user, a clean environment, little time, little said."""

import contextlib
import os
import pwd
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from kproxy.errors import KproxyError, UsageError
from kproxy.monitoring.remediation.seams import Finished

OUTPUT_MOST = 8192
"""Last bytes of what a script says, which are kept; those before are read and dropped."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KILLED_WITHIN_S = 5.0
_WARDEN = Path(__file__).with_name("warden.py")
_ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/"}


@dataclass(frozen=True, slots=True)
class User:
    """As whom a script runs. ``uid`` None: as we are, who are nobody special."""

    uid: int | None
    gid: int | None


def user_named(name: str) -> User:
    """Return a user by name. Raises UsageError for root, and where we cannot become that user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"there is no user {name!r}", remedy="name one that exists") from None
    if found.pw_uid == 0:
        raise UsageError("user scripts do not run as root", remedy="name another user")
    if os.geteuid() == 0:
        return User(found.pw_uid, found.pw_gid)
    if found.pw_uid != os.geteuid():
        words = f"only root can run scripts as {name}"
        raise UsageError(words, remedy="run the receiver as root, or name its own user")
    return User(None, None)


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    user: User,
    timeout: float,
    limits: Mapping[str, int],
) -> Finished:
    """Run a script and wait for its end; after ``timeout`` seconds all of it is killed.

    ``limits``: by names of ``resource.RLIMIT_…``. Its standard output and error come as one.
    """
    job = {
        "argv": list(argv),
        "env": {**_ENVIRONMENT, **env},
        "uid": user.uid,
        "gid": user.gid,
        "limits": dict(limits),
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_WARDEN)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout as output, process.stdin as life_line:
        with contextlib.suppress(BrokenPipeError):
            life_line.write(msgspec.json.encode(job) + b"\n")
        said, in_time = _listen(output, timeout)
        life_line.close()
        code = _await_end(process)
    text = said.decode(errors="replace")
    return Finished(code=code if in_time else -1, stdout=text, timed_out=not in_time)


def _listen(output: IO[bytes], timeout: float) -> tuple[bytes, bool]:
    """Return what is said until the end, and whether the end came in time."""
    until, said = time.monotonic() + timeout, b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if selector.select(left):
                part = os.read(output.fileno(), 65536)
                if not part:
                    return said, True
                said = (said + part)[-OUTPUT_MOST:]
    return said, False


def _await_end(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(KILLED_WITHIN_S)
    except subprocess.TimeoutExpired:
        # A script in uninterruptible sleep; the kernel kills it with its warden when it can.
        process.kill()
        process.wait()
        raise KproxyError("a script could not be killed") from None
