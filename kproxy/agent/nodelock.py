"""The lock of a node: who holds it writes, and nobody else.

It is a listening socket with a name in the network namespace (an abstract Unix socket), so it lies
where the rules lie, leaves no file, and is freed by the kernel with its last holder, however that
ends. Programs that the holder starts do not inherit it: a killed proxy's ``iptables-restore`` does
not keep its successor from the lock, but from reading rules that are about to change: see
:mod:`kproxy.kernel.iptables.turn`. Those who wait connect to the socket: so they hear at once when
the holder is gone, and speak with it as :mod:`kproxy.agent.handover` says.
"""

import contextlib
import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from kproxy.agent import handover, reception
from kproxy.agent.handover import Candidate, Message, Standby, Transfer, Word
from kproxy.logs import Log

NAME = "kproxy/writes"
_LOOK_AGAIN_S = 0.01
NOBODY_S = 10.0
"""Who has the name and does not listen for so long is no proxy."""


class NodeLock:
    """The right to write on this node, held or waited for.

    :meth:`take`, :meth:`wait`, :meth:`hand_over` and :meth:`synced` belong to one thread.
    ``asks``: whether it asks a living holder to hand over; ``pod``: the name of the pod that this
    process runs in, empty if unknown.
    """

    def __init__(self, log: Log, *, asks: bool = False, pod: str = "", name: str = NAME) -> None:
        self._log = log
        self._name = f"\0{name}"
        self._pod = pod
        self._standby = Standby(asks=asks, pod=pod)
        self._listener: socket.socket | None = None
        self._unlocked = False
        self._retired: tuple[str, ...] = ()
        self._successor: socket.socket | None = None
        self._transfer: Transfer | None = None
        self._predecessor: socket.socket | None = None
        self._holder: socket.socket | None = None
        self._refused = False
        self._waiting: deque[tuple[socket.socket, Candidate]] = deque()
        self._reception: reception.Reception | None = None

    @property
    def holding(self) -> bool:
        """Return whether this process may write."""
        return self._listener is not None or self._unlocked

    def take(self) -> bool:
        """Take the lock if it is free; return whether it is ours. Does not wait.

        Where it is not, the holder is connected to: who has come before another proxy takes over
        will know that it was too late.
        """
        if self.holding:
            return True
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.bind(self._name)
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                self._do_without(error.strerror or str(error))
            elif self._holder is None:
                self._holder = self._connect()
            return self.holding
        self._own(sock, "holder has gone" if self._standby.has_met_holder else "free")
        return True

    def wait(self) -> list[socket.socket]:
        """Wait until the lock is ours; return the ports that came with it.

        To be called when all is ready for writing: this tells a holder so.
        """
        until = time.monotonic() + NOBODY_S
        while not self.take():
            if self._holder is None:
                # It has just ended, has the name and does not listen yet, or does not accept.
                if self._refused and time.monotonic() >= until:
                    self._do_without("nobody listens at its name, but somebody has it")
                time.sleep(_LOOK_AGAIN_S)
                continue
            holder, self._holder = self._holder, None
            try:
                ports = self._converse(holder)
            except (OSError, ValueError) as error:
                self._log.debug("connection to the holder ended", error=str(error))
                holder.close()
                until = time.monotonic() + NOBODY_S
            else:
                self._predecessor = holder
                return ports
        if self._holder is not None:
            self._holder.close()
        return []

    def synced(self) -> None:
        """Tell the predecessor, if there is one that waits for it, that it is not needed."""
        if self._predecessor is not None:
            with contextlib.suppress(OSError):  # It has ended already.
                self._predecessor.send(handover.encode(Message(Word.SYNCED)))
            self._predecessor.close()
            self._predecessor = None
            if self._reception is not None and self._waiting:
                self._reception.tell()

    def receive(self, ready: Callable[[], None]) -> None:
        """Begin to hear who else is ready, in the background; ``ready`` is called for each."""
        if self._listener is not None:
            self._reception = reception.Reception(self._listener, self._waiting, ready)

    def wanted(self, *, leaving: bool = False) -> bool:
        """Return whether somebody is ready to whom :meth:`hand_over` would hand over."""
        return self._choose(leaving=leaving) is not None

    def hand_over(
        self,
        ports: Callable[[], Sequence[socket.socket]],
        resume: Callable[[], None],
        *,
        leaving: bool = False,
    ) -> bool:
        """Hand the right to write to somebody who is ready; return whether we are not needed.

        The caller writes nothing meanwhile. ``ports`` stops accepting connections and returns the
        listening sockets, ``resume`` accepts again. Returns when the other has synced, and False
        if it died before that: then we hold the lock as before. ``leaving``: we are to end anyway,
        so wait only for a while, and never take the lock back.
        """
        transfer = self._transfer
        if leaving and transfer is not None and transfer.given:
            # A signal has interrupted us when the other one had been told that it may write, or
            # was about to be. If it cannot be told now it has ended, perhaps when all was done.
            transfer.leave(time.monotonic())
            if transfer.sent or self._send(ports):
                self._await_synced()
            self._part()
            return True
        if leaving and self._reception is not None:
            self._reception.stop(handover.LEAVING_S)
        while (chosen := self._choose(leaving=leaving)) is not None:
            self._waiting.remove(chosen)
            self._successor, candidate = chosen
            self._transfer = Transfer(time.monotonic())
            if self._give(candidate, ports):
                if leaving:
                    self._transfer.leave(time.monotonic())
                if self._await_synced() or leaving:
                    self._part()
                    return True
                self._take_back("successor died")
            self._part()
            self._transfer = None
            resume()
            self._log.warning("hand-over failed", to=candidate.pod)
        return False

    def close(self) -> None:
        """Give the lock back."""
        if self._reception is not None:
            self._reception.stop()
        for sock in (
            self._listener,
            self._predecessor,
            self._holder,
            *(one for one, _ in self._waiting),
        ):
            if sock is not None:
                sock.close()
        self._waiting.clear()
        self._listener = self._predecessor = self._successor = self._holder = None
        self._reception = None

    # As a standby.

    def _connect(self) -> socket.socket | None:
        """Connect to the holder; None: this is not possible now, or not needed."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.settimeout(handover.SILENCE_S)
            sock.connect(self._name)
            peer = reception.peer(sock)
        except OSError as error:
            self._refused = error.errno == errno.ECONNREFUSED
            sock.close()
            return None
        if peer.user != os.geteuid():
            self._do_without(f"user {peer.user}, who may not write, holds its name")
            sock.close()
            return None
        self._standby.joined()
        self._log.info("another proxy writes", pid=peer.pid)
        return sock

    def _converse(self, holder: socket.socket) -> list[socket.socket]:
        """Answer what the holder says until the lock is ours; return the ports.

        Raises OSError when the connection ends, ValueError when it is of no use.
        """
        told = self._standby.ready(time.monotonic())
        holder.send(handover.encode(told))
        self._log.info("standby", reserve=told.reserve)
        while True:
            message, sockets = self._hear(holder)
            reply = self._standby.answer(message, time.monotonic())
            if reply is None:
                self._own(sockets[0], "handed over")
                self._turn_away()
                self._retired = self._standby.retired
                return sockets[1:]
            holder.send(handover.encode(reply))

    def _hear(self, holder: socket.socket) -> tuple[Message, list[socket.socket]]:
        while not reception.readable(holder, self._standby.warning_due()):
            self._log.warning("the holder of the lock does not answer: waiting on")
            self._standby.warned()
        packet, sockets = reception.receive(holder)
        try:
            message = handover.decode(packet)
            if (message.word is Word.YOURS) != bool(sockets):
                raise ValueError(f"{message.word} with {len(sockets)} sockets")
        except ValueError:
            for one in sockets:
                one.close()
            raise
        return message, sockets

    def _own(self, listener: socket.socket, how: str) -> None:
        # Again: the kernel names the process that did it last to whoever asks who the holder is.
        listener.listen(reception.BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self._log.info("holding", how=how)

    def _turn_away(self) -> None:
        """Let those who wanted to take over from our predecessor know that they came too late."""
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()

    def _do_without(self, reason: str) -> None:
        """Write without a lock, as kube-proxy does, rather than never."""
        self._log.warning("no lock on this node: writing without", reason=reason)
        self._unlocked = True

    # As the holder.

    def _choose(self, *, leaving: bool) -> tuple[socket.socket, Candidate] | None:
        if self._predecessor is not None:
            # It goes on if we end before we have synced; so nobody else may then.
            return None
        for one in tuple(self._waiting):
            if reception.has_ended(one[0]):
                self._waiting.remove(one)
                one[0].close()
            elif handover.may_take_over(one[1], self._retired, leaving=leaving):
                return one
        return None

    def _give(self, candidate: Candidate, ports: Callable[[], Sequence[socket.socket]]) -> bool:
        """Offer the lock and give it; return whether the other may have it now."""
        assert self._successor is not None
        assert self._transfer is not None
        try:
            self._successor.send(handover.encode(Message(Word.OFFER)))
            if not reception.readable(self._successor, self._transfer.deadline()):
                return False
            self._transfer.heard(handover.decode(reception.receive(self._successor)[0]))
        except (OSError, ValueError) as error:
            self._log.debug("connection to the standby ended", error=str(error))
            return False
        self._log.info("released", to=candidate.pod)
        if not self._send(ports):
            # It would wait for the lock as we for its sync.
            self._transfer.given = False
            self._take_back("not sent")
        return self._transfer.given

    def _send(self, ports: Callable[[], Sequence[socket.socket]]) -> bool:
        """Send the lock to who has accepted it; return whether that has it. Twice does no harm."""
        assert self._listener is not None
        assert self._successor is not None
        assert self._transfer is not None
        try:
            if self._reception is not None:
                self._reception.stop()
            given = [self._listener, *ports()][: reception.SOCKETS_MAX]
            message = Message(Word.YOURS, retired=handover.retire(self._retired, self._pod))
            descriptors = [one.fileno() for one in given]
            socket.send_fds(self._successor, [handover.encode(message)], descriptors)
        except OSError as error:
            self._log.debug("connection to the standby ended", error=str(error))
            return False
        self._transfer.sent = True
        return True

    def _await_synced(self) -> bool:
        """Wait until the other one has synced; return whether it did before it ended."""
        if self._successor is None:
            return True
        assert self._transfer is not None
        try:
            while reception.readable(self._successor, self._transfer.deadline()):
                if self._transfer.heard(handover.decode(reception.receive(self._successor)[0])):
                    return True
        except (OSError, ValueError) as error:
            self._log.debug("connection to the standby ended", error=str(error))
        return False

    def _part(self) -> None:
        if self._successor is not None:
            self._successor.close()
            self._successor = None

    def _take_back(self, why: str) -> None:
        self._log.info("holding", how=why)
        if self._reception is not None:
            self._reception = self._reception.again()
