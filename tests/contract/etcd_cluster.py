"""An etcd cluster whose members have network namespaces of their own, to be killed and cut off.

Everything hangs on processes: a namespace lives as long as the one that holds it, so nothing is
left behind when a test is killed. The caller's namespace routes between the members.
"""

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from child_processes import DIES_WITH_US

from kproxy.controlplane.storage import etcdmember
from netns.wait import wait_until

DEADLINE = 60.0


class EtcdCluster:
    """Members ``m1``, ``m2``, …; made in the namespace of the calling thread."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, *, size: int) -> None:
        self._directory = directory
        self.peers = {f"m{number}": f"10.88.{number}.2" for number in range(1, size + 1)}
        self._holders: dict[str, subprocess.Popen] = {}
        self._running: dict[str, subprocess.Popen] = {}
        stack.callback(self._end)
        run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        for number, name in enumerate(self.peers, 1):
            self._lay(number, name)
        for name in self.peers:
            self.start(name)

    @property
    def endpoints(self) -> list[str]:
        return etcdmember.endpoints(self.peers)

    def start(self, name: str) -> None:
        """Start a member, for the first time or again."""
        command = etcdmember.command(name, self._directory / name, self.peers)
        with (self._directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*DIES_WITH_US, *self._within(name, *command)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def cut_off(self, name: str, *, down: bool) -> None:
        """Take a member's link down, or up again. What is sent to it is lost without a word."""
        state = "down" if down else "up"
        run(*self._within(name, "ip", "link", "set", "eth0", state))
        if not down:
            run(*self._within(name, "ip", "route", "add", "default", "via", self._router(name)))

    def leader(self) -> str:
        """Return the name of the leader, after waiting until all that run know it."""
        return wait_until(self._leader, DEADLINE, "the cluster has no leader", interval=0.1)

    def _leader(self) -> str:
        told = {name: self._status(self.peers[name]) for name in self._running}
        if len({status and status.get("leader") for status in told.values()}) != 1:
            return ""
        leading = [
            name
            for name, status in told.items()
            if status and status["header"]["member_id"] == status.get("leader")
        ]
        return leading[0] if leading else ""

    def _status(self, address: str) -> dict | None:
        connection = http.client.HTTPConnection(address, etcdmember.CLIENT_PORT, timeout=1)
        try:
            connection.request("POST", "/v3/maintenance/status", "{}")
            return json.loads(connection.getresponse().read())
        except OSError:
            return None
        finally:
            connection.close()

    def _lay(self, number: int, name: str) -> None:
        holder = subprocess.Popen(
            [*DIES_WITH_US, "unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._holders[name] = holder
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        veth = f"veth{number}"
        run("ip", "link", "add", veth, "type", "veth", "peer", "eth0", "netns", str(holder.pid))
        run("ip", "address", "add", f"{self._router(name)}/24", "dev", veth)
        run("ip", "link", "set", veth, "up")
        inside = f"{self.peers[name]}/24"
        run(*self._within(name, "ip", "link", "set", "lo", "up"))
        run(*self._within(name, "ip", "address", "add", inside, "dev", "eth0"))
        self.cut_off(name, down=False)

    def _router(self, name: str) -> str:
        return self.peers[name].removesuffix("2") + "1"

    def _within(self, name: str, *command: str) -> list[str]:
        return ["nsenter", f"--target={self._holders[name].pid}", "--net", *command]

    def _end(self) -> None:
        for process in (*self._running.values(), *self._holders.values()):
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for name in self.peers:  # 120 MB each, where files are not sparse
            shutil.rmtree(self._directory / name, ignore_errors=True)


@contextlib.contextmanager
def etcd_cluster(directory: Path, *, size: int = 3) -> Iterator[EtcdCluster]:
    with contextlib.ExitStack() as stack:
        yield EtcdCluster(directory, stack, size=size)


def run(*command: str) -> None:
    subprocess.run(command, check=True)
