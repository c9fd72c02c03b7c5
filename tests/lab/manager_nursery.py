"""Starts managers by forking: importing them a hundred times would take longer than the test.

Reads lines ``ARGUMENTS… > LOGFILE`` from standard input and answers each with a process id. Ends,
and all managers with it, at the end of its input.
"""

import gc
import os
import signal
import sys

from kproxy.controlplane import manager


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()  # what is not looked at need not be copied
    started = []
    for line in sys.stdin:
        options, _, log = line.strip().partition(" > ")
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 2)
            os.close(0)
            code = manager.main(options.split())
            os._exit(code)
        started.append(pid)
        print(pid, flush=True)
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
