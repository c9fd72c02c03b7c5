"""A node's cable, pulled and plugged in again, and when the node's kernel noticed.

It is the cable of the node's card, if it is on one (:mod:`uplinks`), otherwise the one into the
lab's switch. By software a cable between two cards is pulled by switching one of them off, and the
other notices; of a node and its traffic host it is the node's that is switched off, because nobody
can send by a card that is. Of a card whose carrier stays somebody has to pull the cable by hand:
then what is known is when that was noticed, not when it was done.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kproxy import errors
from netns.cable import CarrierWatch
from netns.errors import NetnsError
from netns.lab import AttachedLab
from netns.topology import Interface

LAN_INTERFACE = "eth0"
NOTICE_SECONDS = 10.0
HAND_SECONDS = 120.0


class Cable:
    """The cable of a node; ``tell`` asks somebody to pull it, where there is no other way.

    Make one while nothing is measured: it tries whether software can pull the cable of a card, and
    switches the other end off for seconds to find out that it cannot.
    """

    def __init__(self, lab: AttachedLab, node: str, tell: Callable[[str], None]) -> None:
        self._lab = lab
        self._tell = tell
        self._end = _watched(lab, node)
        self._by_hand = "" if self._end.uplink is None else self._refusal()

    @property
    def end(self) -> str:
        """The host that notices."""
        return self._end.host

    def pull(self) -> tuple[int, int]:
        """Pull it; return when, and when the kernel said that the carrier is gone.

        Nanoseconds of the monotonic clock. Raises ``MeasurementError`` if that does not happen;
        then it is plugged in.
        """
        if self._by_hand:
            return self._ask("pull", self._by_hand, connected=False)
        return self._switch(connected=False)

    def plug(self) -> tuple[int, int]:
        """Plug it in again; return when, and when the kernel said that there is a carrier."""
        if self._by_hand:
            return self._ask("plug in", "it was pulled by hand", connected=True)
        return self._switch(connected=True)

    def _refusal(self) -> str:
        """Return why software cannot pull it; empty: it can."""
        try:
            self._lab.plug(self._end.host, self._end.name, connected=False)
        except NetnsError as refusal:
            return refusal.message
        self._lab.plug(self._end.host, self._end.name, connected=True)
        return ""

    def _switch(self, *, connected: bool) -> tuple[int, int]:
        # Heard by a thread: who waits for the carrier otherwise looks at it now and then only.
        try:
            with (
                self._lab.host(self._end.host).call(CarrierWatch, self._end.name) as watch,
                ThreadPoolExecutor(1) as pool,
            ):
                noticed = pool.submit(watch.await_state, up=connected, timeout=NOTICE_SECONDS)
                done = self._lab.plug(self._end.host, self._end.name, connected=connected)
                return done, noticed.result()
        except NetnsError as error:
            raise errors.MeasurementError(str(error)) from None

    def _ask(self, what: str, why: str, *, connected: bool) -> tuple[int, int]:
        with self._lab.host(self._end.host).call(CarrierWatch, self._end.name) as watch:
            self._tell(f"{why}: now {what} the cable of {self._end.uplink} by hand")
            try:
                noticed = watch.await_state(up=connected, timeout=HAND_SECONDS)
            except NetnsError as error:
                raise errors.MeasurementError(str(error)) from None
        return noticed, noticed


def _watched(lab: AttachedLab, node: str) -> Interface:
    """Return the end of the node's cable at which a carrier comes and goes."""
    topology = lab.topology
    for link in topology.links:
        if link.physical and node in (link.a.host, link.b.host):
            return link.b if link.a.host == node else link.a
    cards = [each for each in topology.interfaces(node) if each.uplink]
    return cards[0] if cards else lab.host(node).interface(LAN_INTERFACE)
