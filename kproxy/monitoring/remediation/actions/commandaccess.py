"""Running commands on a node by a program that gets there: ssh, or a lab's own.

``nodeAccess.options.command`` are the words that go first, ``{node}`` among them for the node's
name: ``ssh -o BatchMode=yes root@{node}``. ``quote: "true"`` where the other side is a shell, as
with ssh: then every word is quoted for it.
"""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence

from kproxy.client.rest import Rest
from kproxy.errors import UsageError
from kproxy.logs import Log
from kproxy.monitoring.remediation.seams import Finished, NodeUnreachable

from .captured import KILLED_WITHIN_S, Listener

UNREACHABLE = 255
"""The exit code of ssh, and of a lab's program, for a node that cannot be reached."""

REASON_MOST = 500
"""Characters of what is said about such a node that are handed on: it goes into the audit log."""


class CommandAccess:
    """Implements :class:`~kproxy.monitoring.remediation.seams.NodeAccess`."""

    def __init__(self, words: Sequence[str], *, quote: bool = False) -> None:
        self._words = tuple(words)
        self._quote = quote

    def run(self, node: str, command: Sequence[str], timeout: float) -> Finished:
        """Run a command there. Raises NodeUnreachable.

        Of a long output head and tail are returned. What the command leaves behind is not waited
        for, also if it has the output still open.
        """
        there = [shlex.quote(word) for word in command] if self._quote else list(command)
        words = [word.replace("{node}", node) for word in self._words] + there
        try:
            popen = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            raise NodeUnreachable(f"node {node}: {words[0]}: {error.strerror}") from None
        assert popen.stdout is not None
        assert popen.stderr is not None
        with popen.stdout, popen.stderr:
            said = Listener(popen)
            try:
                late = not said.until_end(timeout)
            except BaseException:
                _kill(popen)  # Nobody would ever look after it again.
                raise
            if late:
                _kill(popen)
                said.take_rest()
        stdout, stderr = said.stdout.text(), said.stderr.text()
        if popen.returncode == UNREACHABLE and not late:
            raise NodeUnreachable(f"node {node}: {stderr.strip()[-REASON_MOST:] or words[0]}")
        code = -1 if late else popen.returncode
        return Finished(code=code, stdout=stdout, stderr=stderr, timed_out=late)


def _kill(popen: "subprocess.Popen[bytes]") -> None:
    """End a command with its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
    # One that waits for a disk ends when the kernel lets it; nobody waits for that.
    with contextlib.suppress(subprocess.TimeoutExpired):
        popen.wait(KILLED_WITHIN_S)


def make(rest: Rest | None, log: Log, options: Mapping[str, str]) -> CommandAccess:
    """Make one. Raises UsageError for options that say no command."""
    try:
        words = shlex.split(options.get("command", ""))
    except ValueError as error:
        words, why = [], str(error)
    else:
        why = "it is empty" if not words else ""
    if why or not any("{node}" in word for word in words):
        raise UsageError(
            f"nodeAccess.options.command: {why or 'it names no node'}",
            remedy="write for example: ssh -o BatchMode=yes root@{node}",
        )
    return CommandAccess(words, quote=options.get("quote", "").lower() == "true")
