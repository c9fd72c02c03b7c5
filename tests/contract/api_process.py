"""An API server of its own, as a process with TLS, for tests with other people's clients."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ports
from child_processes import DIES_WITH_US

from kproxy.controlplane.access import kubeconfigs


@dataclass(frozen=True)
class ApiProcess:
    """Where it is, and the secrets with which to get in."""

    port: int
    credentials: kubeconfigs.Credentials

    @property
    def admin(self) -> Path:
        """Return the kubeconfig of the administrator."""
        return self.credentials.kubeconfig(kubeconfigs.ADMIN)


@contextlib.contextmanager
def running(directory: Path) -> Iterator[ApiProcess]:
    """Run an API server with a store in a directory."""
    port = ports.unused()
    address = f"127.0.0.1:{port}"
    pki = directory / "pki"
    module = "kproxy.controlplane.apiserver"
    command = [*DIES_WITH_US, sys.executable, "-m", module, "--bind", address]
    command += ["--pki", str(pki), "--store", f"sqlite:{directory / 'db'}"]
    credentials = kubeconfigs.Credentials(pki, ["127.0.0.1"], f"https://{address}")
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process, process.stderr:
        line = process.stderr.readline()
        assert json.loads(line)["msg"] == "listening", line
        try:
            yield ApiProcess(port, credentials)
        finally:
            process.terminate()
            said = process.stderr.read()
            assert process.wait(60) == 0, said
    assert b"request failed" not in said, said
