"""Programs beside a container's own: probes, hooks, ``kubectl exec``.

Started in the pod's network namespace, on the host's file system like the container itself. They
end at the latest with the pod.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from kproxy import errors
from kproxy.controlplane.runtime import Streams
from netns.host import LiveHost
from netns.wait import readable


class Beside:
    """One such program, the leader of a process group. Raises KproxyError if it cannot start."""

    def __init__(
        self,
        host: LiveHost,
        command: Sequence[str],
        streams: Streams,
        *,
        env: Mapping[str, str],
        cwd: str,
    ) -> None:
        words = list(command)
        if streams.terminal:
            # The program must lead a session to have a terminal, and so leads a group as well.
            words = ["setsid", "--ctty", *words]
        try:
            with host.entered():
                self._popen = subprocess.Popen(
                    words,
                    stdin=streams.stdin,
                    stdout=streams.stdout,
                    stderr=streams.stderr,
                    env=dict(env),
                    cwd=cwd or None,
                    process_group=None if streams.terminal else 0,
                )
        except OSError as error:
            raise errors.KproxyError(f"cannot start {command[0]}: {error.strerror}") from error
        self._pidfd = os.pidfd_open(self._popen.pid)

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._popen.pid

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the program has ended."""
        return self._pidfd

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal; None while it runs.

        What it has left in its group ends with it, lest probes leave ever more behind.
        """
        if self._popen.returncode is None and readable(self._pidfd, 0):
            self.kill()  # before its number is given back
        return self._popen.poll()

    def kill(self) -> None:
        """End it and what it started; one that has ended already is no error."""
        if self._popen.returncode is None:  # not waited for yet, so its number is still its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def close(self) -> None:
        """Forget it; who has not ended is killed first."""
        self.kill()
        self._popen.wait()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
