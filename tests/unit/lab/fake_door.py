"""A door without a lab behind it: commands run where it runs. As a program, for tests.

``FAKE_DOOR`` in the environment: ``refuse`` (there is no lab), ``die`` (its kernel has died).
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kproxy.lab.door import server
from kproxy.lab.whole.processes import Container
from netns.errors import NetnsError


class NoHost:
    def entered(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class NoLab:
    state_dir = Path("/nowhere")

    def host(self, name: str) -> NoHost:
        if name != "node1":
            raise NetnsError(f"lab has no host {name!r}", remedy="there are: node1")
        return NoHost()


class NoProcesses:
    def containers(self) -> list[Container]:
        return []


class NoCluster:
    processes = NoProcesses()

    def close(self) -> None:
        pass

    def environment(self) -> dict[str, str]:
        return dict(os.environ)


class FakeDoor(server.Door):
    def _lab(self, job: Any, site: Any) -> Any:
        return self._made()

    @contextlib.contextmanager
    def _made(self) -> Iterator[NoLab]:
        if os.environ.get("FAKE_DOOR") == "refuse":
            raise NetnsError("there is no room", remedy="make some")
        try:
            yield NoLab()
        finally:
            Path(os.environ["FAKE_DOOR_GONE"]).write_text("taken away")

    def _cluster(self, lab: Any, site: Any) -> Any:
        return NoCluster()

    def _start(self, cluster: Any, job: Any) -> list[str]:
        if os.environ.get("FAKE_DOOR") == "die":
            os._exit(125)
        self._progress("starting")
        return ["Service a/b: is wrong"]


if __name__ == "__main__":
    # The program makes the door itself; in this process there is no other.
    server.Door = FakeDoor  # type: ignore[misc]
    sys.exit(server.main())
