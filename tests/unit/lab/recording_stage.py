"""A stage that does nothing but note what scenarios ask of it."""

import itertools
from collections.abc import Iterator


class RecordingStage:
    """Notes what a scenario does; its clock advances by one with every act."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.marks: list[tuple[str, int, str]] = []
        self._clock: Iterator[int] = itertools.count(1)

    hit = "node1"
    nodes = ("node1", "node2")

    def _act(self, text: str) -> int:
        self.acts.append(text)
        return next(self._clock)

    def mark(self, name: str, ns: int | None = None, detail: str = "") -> int:
        when = next(self._clock) if ns is None else ns
        self.marks.append((name, when, detail))
        return when

    def kill_proxy(self, node: str) -> tuple[int, int]:
        return self._act(f"kill {node}"), next(self._clock)

    def delete_proxy(self, node: str) -> None:
        self._act(f"delete {node}")

    def await_exit(self, node: str, since: int) -> int:
        return self._act(f"await exit {node}")

    def await_restart(self, node: str, since: int) -> tuple[int, int]:
        return self._act(f"await restart {node}"), next(self._clock)

    def choose_endpoint(self) -> str:
        self.acts.append("choose")
        return "web-1"

    def destroy_endpoint(self, pod: str) -> None:
        self._act(f"destroy {pod}")

    def await_endpoint_removed(self, node: str, pod: str) -> int:
        return self._act(f"await {pod} removed on {node}")

    def await_hand_over(self, node: str, since: int) -> tuple[int, int]:
        return self._act(f"await hand-over {node}"), next(self._clock)

    def update_proxies(self, *, surge: bool) -> None:
        self._act("surge" if surge else "update")

    def pull_cable(self, node: str) -> tuple[int, int, str]:
        return self._act(f"pull {node}"), next(self._clock), node

    def plug_cable(self, node: str) -> tuple[int, int, str]:
        return self._act(f"plug {node}"), next(self._clock), node

    def pause(self, seconds: float) -> None:
        self._act("pause")

    def upgrade_proxies(self) -> None:
        self._act("upgrade")
