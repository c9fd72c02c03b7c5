"""Ten seconds of three etcd members that elect, write, lose one and elect again; what they did.

    python etcd_members.py

Prints how long each write took in nanoseconds, and what each member logged.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kproxy import errors
from kproxy.controlplane.storage import etcd, etcdmember
from kproxy.controlplane.storage.base import Write
from netns.kernels import cyclecounter

SECONDS = 10
MEMBERS = {f"etcd{number}": f"127.0.0.{number}" for number in (1, 2, 3)}


def start(root: Path, program: Path, name: str) -> "subprocess.Popen[bytes]":
    command = etcdmember.command(name, root / f"{name}.data", MEMBERS, program=str(program))
    with (root / name).open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def write_on(storage: etcd.EtcdStorage, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic_ns()
        with contextlib.suppress(errors.KproxyError):  # no leader yet
            storage.commit([Write("/key", b"x" * 1000)])
        print(time.monotonic_ns() - begun)
        time.sleep(0.05)  # the time between two writes


def main(root: Path) -> None:
    program = root / "program"
    if not cyclecounter.without(Path(etcdmember.program()), program):
        sys.exit("this etcd reads the processor's counter in a way that is not known")
    running = {name: start(root, program, name) for name in MEMBERS}
    storage = etcd.EtcdStorage(etcdmember.endpoints(MEMBERS))
    write_on(storage, SECONDS / 2)
    one = running.pop("etcd1")
    one.kill()
    one.wait()
    write_on(storage, SECONDS / 2)
    storage.close()
    for process in running.values():
        process.kill()
        process.wait()
    for name in MEMBERS:
        sys.stdout.write((root / name).read_text(errors="replace"))


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    try:
        main(place)
    finally:
        shutil.rmtree(place)
