"""Who asks a running proxy for a full sync: by a signal, at any moment, also twice at once."""

import subprocess
import sys

PROGRAM = """
import os, signal, sys, threading
from kproxy.agent import resync

lock = threading.Lock()
asked = threading.Semaphore(0)

def request():
    with lock:  # the main thread holds it while the signal comes
        asked.release()

resync.listen(request)
with lock:
    os.kill(os.getpid(), resync.SIGNAL)
assert asked.acquire(timeout=60)
for _ in range(3):
    os.kill(os.getpid(), resync.SIGNAL)
    assert asked.acquire(timeout=60)
"""


def test_each_signal_asks_once_also_while_the_main_thread_holds_the_lock() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
