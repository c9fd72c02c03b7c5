"""A node's cable, pulled and plugged in again, and when the node's kernel noticed.

It is the cable of the node's card, if it is on one (:mod:`uplinks`), otherwise the one into the
lab's switch. Of a card that no software can cut off, somebody has to pull the cable by hand: then
what is known is when that was noticed, not when it was done.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kproxy import errors
from netns.cable import CarrierWatch
from netns.errors import NetnsError
from netns.lab import AttachedLab

LAN_INTERFACE = "eth0"
NOTICE_SECONDS = 10.0
HAND_SECONDS = 120.0


class Cable:
    """The cable of a node; ``tell`` asks somebody to pull it, where there is no other way."""

    def __init__(self, lab: AttachedLab, node: str, tell: Callable[[str], None]) -> None:
        self._lab = lab
        self._node = node
        self._tell = tell
        self._by_hand = False
        host = lab.host(node)
        cards = [each for each in host.interfaces if each.uplink]
        self._end = cards[0] if cards else host.interface(LAN_INTERFACE)

    def pull(self) -> tuple[int, int]:
        """Pull it; return when, and when the node's kernel said that its carrier is gone.

        Nanoseconds of the monotonic clock. Raises ``MeasurementError`` if that does not happen;
        then it is plugged in.
        """
        try:
            return self._switch(connected=False)
        except NetnsError as refusal:
            if self._end.uplink is None:
                raise errors.MeasurementError(str(refusal)) from None
            self._by_hand = True
            return self._ask("pull", refusal.message, connected=False)

    def plug(self) -> tuple[int, int]:
        """Plug it in again; return when, and when the node's kernel said that it has a carrier."""
        if self._by_hand:
            return self._ask("plug in", "it was pulled by hand", connected=True)
        try:
            return self._switch(connected=True)
        except NetnsError as error:
            raise errors.MeasurementError(str(error)) from None

    def _switch(self, *, connected: bool) -> tuple[int, int]:
        # Heard by a thread: who waits for the carrier otherwise looks at it now and then only.
        with (
            self._lab.host(self._node).call(CarrierWatch, self._end.name) as watch,
            ThreadPoolExecutor(1) as pool,
        ):
            noticed = pool.submit(watch.await_state, up=connected, timeout=NOTICE_SECONDS)
            done = self._lab.plug(self._node, self._end.name, connected=connected)
            return done, noticed.result()

    def _ask(self, what: str, why: str, *, connected: bool) -> tuple[int, int]:
        with self._lab.host(self._node).call(CarrierWatch, self._end.name) as watch:
            self._tell(f"{why}: now {what} the cable of {self._end.uplink} by hand")
            try:
                noticed = watch.await_state(up=connected, timeout=HAND_SECONDS)
            except NetnsError as error:
                raise errors.MeasurementError(str(error)) from None
        return noticed, noticed
