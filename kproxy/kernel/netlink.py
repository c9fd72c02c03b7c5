"""A small netlink transport on the standard library: many operations per system call.

pyroute2 would do, but importing it takes longer than all the rest of a proxy's restart together
(130 ms, 600 ms in a User-Mode Linux guest), and it asks for an acknowledgement of every message.

How a batch works. The kernel handles the messages of one ``sendmsg`` before the call returns, and
answers each one that failed, whether or not an answer was asked for. So only the last message of a
batch asks for one: it tells that all before have been dealt with. A batch is kept so small that
even the answers to a batch of nothing but failures fit into the receive buffer; so nobody waits
for anybody, and no answer is lost. Should one be lost all the same (ENOBUFS), the operations
without answer are reported as failed with that errno: whether they were done is not known then.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from kproxy.errors import AlreadyExists, KernelError, NotFound, Unsupported
from kproxy.kernel import attributes
from kproxy.kernel.attributes import Buffer

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NETLINK_GENERIC = 16

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x10

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSG_NOOP = 1
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

BATCH_BYTES = 60_000
"""Size of a batch. Larger ones gain nothing, and the default send buffer takes 200 kB."""

_RECEIVE_BUFFER = 4 << 20
_ANSWER_COST = 1280
"""What one queued answer counts against the receive buffer, with the kernel's overhead."""

_NO_PROTOCOL = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)  # others, such as EMFILE, pass
_ANSWER_TIMEOUT_S = 60
_DUMP_ATTEMPTS = 10
_READ_SIZE = 65536

HEADER = struct.Struct("=IHHII")
"""Of every message: length, type, flags, sequence number, port."""

_ERROR = struct.Struct("=i")
_U16 = struct.Struct("=H")

_GENL_ID_CTRL = 0x10
_CTRL_CMD_GETFAMILY = 3
_CTRL_ATTR_FAMILY_ID = 1
_CTRL_ATTR_FAMILY_NAME = 2

Operation = TypeVar("Operation")
Parsed = TypeVar("Parsed")


class Refusal(NamedTuple):
    """Why the kernel did not do something: errno, and its words if it gave any."""

    errno: int
    text: str = ""


class NetlinkSocket:
    """One netlink socket. It belongs to the namespace in which it was opened. Not for two threads.

    KernelError from the methods if the kernel refuses, or does not answer within a minute.
    ``torn_dumps``: also inconsistent dumps are returned; the caller finds out and asks again.
    """

    def __init__(self, protocol: int, *, torn_dumps: bool = False) -> None:
        self._torn_dumps = torn_dumps
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
            )
        except OSError as error:
            if error.errno in _NO_PROTOCOL:
                raise Unsupported(f"this kernel has no netlink protocol {protocol}") from error
            raise kernel_error("open a netlink socket", Refusal(error.errno or 0)) from error
        self._set_up()
        room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._batch_messages = max(1, room // _ANSWER_COST)
        self._send_room = BATCH_BYTES
        self._sequence = 0
        self._buffer = bytearray(_READ_SIZE)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def execute(
        self, operations: Sequence[Operation], pack: Callable[[Operation, int], bytes]
    ) -> dict[int, Refusal]:
        """Do the operations in order, in batches; return the refused ones by their index.

        ``pack(operation, sequence)`` returns its message, with NLM_F_REQUEST and this sequence
        number in the header.
        """
        base = self._sequence + 1
        return self.send_all(
            pack(operation, base + index & 0xFFFFFFFF)
            for index, operation in enumerate(operations)
        )

    @property
    def next_sequence(self) -> int:
        """Return the sequence number that the next message must have."""
        return self._sequence + 1

    def send_all(self, messages: Iterable[bytes]) -> dict[int, Refusal]:
        """Send messages in batches; return the refused ones by their index.

        Their sequence numbers ascend from :attr:`next_sequence` on (modulo 2 to the 32nd).
        """
        refused: dict[int, Refusal] = {}
        base = self._sequence + 1
        first, size = 0, 0
        index = -1
        batch: list[bytes] = []
        for index, message in enumerate(messages):
            if batch and (size + len(message) > BATCH_BYTES or len(batch) >= self._batch_messages):
                self._send_batch(batch, base, first, refused)
                first, batch, size = index, [], 0
            batch.append(message)
            size += len(message)
        if batch:
            self._send_batch(batch, base, first, refused)
        self._sequence = base + index + 1 & 0xFFFFFFFF
        return refused

    def transact(self, messages: Sequence[bytes]) -> dict[int, Refusal]:
        """Send messages as one, however long it is; return the refused ones by their index.

        For parts of the kernel that take a transaction so. Numbered as for :meth:`send_all`.
        """
        base, count = self.next_sequence, len(messages)
        self._sequence = base + count & 0xFFFFFFFF
        whole = b"".join(messages)
        try:
            self._make_room(len(whole))
            self._socket.send(whole)
        except OSError as error:
            return {0: Refusal(error.errno or 0, "could not be sent")}
        answered = self._answers(base, count, acknowledged=False)
        return {index: answer for index, answer in answered.items() if answer is not None}

    def ask(
        self,
        kind: int,
        payload: bytes,
        parse: Callable[[Buffer, int, int], Parsed],
        what: str,
        flags: int = 0,
    ) -> Parsed:
        """Send one request and return its parsed answer; ``what`` names it in errors."""
        sequence = self._send(kind, NLM_F_REQUEST | flags, payload, what)
        while True:
            try:
                messages = self._messages(what)
            except _AnswersLost:
                raise kernel_error(what, Refusal(errno.ENOBUFS, "the answer was lost")) from None
            for reply, answer_flags, number, start, end in messages:
                if number != sequence:
                    continue
                if reply == _NLMSG_ERROR:
                    refusal = self._refusal(answer_flags, start, end)
                    raise kernel_error(what, refusal or Refusal(0, "acknowledged, not answered"))
                return parse(self._buffer, start, end)

    def dump(
        self, kind: int, payload: bytes, parse: Callable[[Buffer, int, int], Parsed], what: str
    ) -> list[Parsed]:
        """Return all parsed answers to a dump request, in the kernel's order.

        ``parse(buffer, start, end)`` must keep no reference to the buffer. A dump that the kernel
        marks as inconsistent, because the table changed meanwhile, or that lost messages, is asked
        for again.
        """
        for _ in range(_DUMP_ATTEMPTS):
            found = self._dump_once(kind, payload, parse, what)
            if found is not None:
                return found
        raise KernelError(what, errno.EAGAIN, f"kept changing during {_DUMP_ATTEMPTS} readings")

    def _set_up(self) -> None:
        sock = self._socket
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            # As much as net.core.rmem_max allows; batches are made as small as it demands.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        # The kernel's own time-out: Python's would poll before every read.
        timeout = struct.pack("@ll", _ANSWER_TIMEOUT_S, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                sock.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                continue  # Older kernels lack them: longer answers, no words, unfiltered dumps.
        sock.bind((0, 0))

    def _make_room(self, size: int) -> None:
        """Let the socket send so long a message. OSError: this takes CAP_NET_ADMIN."""
        if size > self._send_room:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
            self._send_room = size

    def _send(self, kind: int, flags: int, payload: bytes, what: str) -> int:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        length = HEADER.size + len(payload)
        message = HEADER.pack(length, kind, flags, self._sequence, 0) + payload
        try:
            self._socket.send(message)
        except OSError as error:
            refusal = Refusal(error.errno or 0, "could not be sent")
            raise kernel_error(what, refusal) from error
        return self._sequence

    def _send_batch(
        self, batch: list[bytes], base: int, first: int, refused: dict[int, Refusal]
    ) -> None:
        last = bytearray(batch[-1])
        _U16.pack_into(last, 6, _U16.unpack_from(last, 6)[0] | NLM_F_ACK)
        batch[-1] = bytes(last)
        count = len(batch)
        try:
            self._socket.send(b"".join(batch))
        except OSError as error:
            refusal = Refusal(error.errno or 0, "could not be sent")
            refused.update((first + offset, refusal) for offset in range(count))
            return
        answered = self._answers(base + first, count)
        for offset, answer in answered.items():
            if answer is not None:
                refused[first + offset] = answer

    def _answers(
        self, sequence: int, count: int, *, acknowledged: bool = True
    ) -> dict[int, Refusal | None]:
        """Read until the last message of the batch is answered; or all, if it need not be.

        Without waiting: whatever the kernel has to say was queued before the sending returned.
        """
        answered: dict[int, Refusal | None] = {}
        complete = True
        while not acknowledged or count - 1 not in answered:
            try:
                messages = self._messages("netlink batch", socket.MSG_DONTWAIT)
            except _AnswersLost:
                complete = False
                continue  # Said once, before the answers that were queued until then.
            if not messages:
                complete = complete and not acknowledged
                break
            for kind, flags, number, start, end in messages:
                offset = number - sequence & 0xFFFFFFFF
                if kind == _NLMSG_ERROR and offset < count:
                    answered[offset] = self._refusal(flags, start, end)
        if complete:
            return answered
        lost = Refusal(errno.ENOBUFS, "no answer: whether it was done is unknown")
        return {offset: answered.get(offset, lost) for offset in range(count)}

    def _dump_once(
        self, kind: int, payload: bytes, parse: Callable[[Buffer, int, int], Parsed], what: str
    ) -> list[Parsed] | None:
        sequence = self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload, what)
        found: list[Parsed] = []
        interrupted = False
        buffer = self._buffer
        try:
            while True:
                for reply, flags, number, start, end in self._messages(what):
                    if number != sequence:
                        continue
                    if flags & _NLM_F_DUMP_INTR and reply != _NLMSG_ERROR:
                        interrupted = True
                    if reply == _NLMSG_DONE:
                        _raise_if_failed(buffer, start, end, what)
                        return None if interrupted and not self._torn_dumps else found
                    if reply == _NLMSG_ERROR:
                        refusal = self._refusal(flags, start, end)
                        if refusal is None:
                            return found
                        raise kernel_error(what, refusal)
                    found.append(parse(buffer, start, end))
        except _AnswersLost:
            return None

    def _messages(self, what: str, receive_flags: int = 0) -> list[tuple[int, int, int, int, int]]:
        """Receive once; return (type, flags, sequence, start of payload, end) of each message.

        None of them if it is not to wait and there is nothing.
        """
        try:
            received = self._socket.recv_into(self._buffer, 0, receive_flags)
        except BlockingIOError:
            if receive_flags & socket.MSG_DONTWAIT:
                return []
            raise KernelError(
                what, errno.ETIMEDOUT, f"no answer within {_ANSWER_TIMEOUT_S} s"
            ) from None
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise _AnswersLost from None
            raise kernel_error(what, Refusal(error.errno or 0)) from error
        found = []
        position = 0
        unpack = HEADER.unpack_from
        while position + 16 <= received:
            length, kind, flags, sequence, _port = unpack(self._buffer, position)
            if length < 16 or position + length > received:
                raise KernelError(what, errno.EBADMSG, f"broken message of {length} bytes")
            if kind != _NLMSG_NOOP:
                found.append((kind, flags, sequence, position + 16, position + length))
            position += (length + 3) & ~3
        return found

    def _refusal(self, flags: int, start: int, end: int) -> Refusal | None:
        """Read an NLMSG_ERROR: None if it is an acknowledgement."""
        buffer = self._buffer
        (code,) = _ERROR.unpack_from(buffer, start)
        if code == 0:
            return None
        words = ""
        if flags & _NLM_F_ACK_TLVS:
            start += 4
            (request_length,) = struct.unpack_from("=I", buffer, start)
            start += 16 if flags & _NLM_F_CAPPED else (request_length + 3) & ~3
            place = attributes.find(buffer, start, end).get(_NLMSGERR_ATTR_MSG)
            if place:
                words = bytes(buffer[place[0] : place[1]]).rstrip(b"\0").decode(errors="replace")
        return Refusal(-code, words)


class _AnswersLost(Exception):
    """The receive buffer ran over."""


def generic_family(sock: NetlinkSocket, name: str) -> int:
    """Return the message type of a generic netlink family. The kernel loads its module if it can.

    NotFound: there is no such family.
    """
    payload = struct.pack("=BBH", _CTRL_CMD_GETFAMILY, 1, 0)
    payload += attributes.text(_CTRL_ATTR_FAMILY_NAME, name)

    def family_id(buffer: Buffer, start: int, end: int) -> int:
        begin, _end = attributes.find(buffer, start + 4, end)[_CTRL_ATTR_FAMILY_ID]
        found: int = _U16.unpack_from(buffer, begin)[0]
        return found

    return sock.ask(_GENL_ID_CTRL, payload, family_id, f"find generic netlink family {name}")


def kernel_error(operation: str, refusal: Refusal, **words: Any) -> KernelError:
    """Return the error for an answer: NotFound (ENOENT, ESRCH), AlreadyExists, or KernelError."""
    number, said = refusal
    detail = os.strerror(number) if number else "unknown failure"
    if said:
        detail += f": {said}"
    kind = _KINDS.get(number, KernelError)
    return kind(operation, number, detail, **words)


_KINDS: dict[int, type[KernelError]] = {
    errno.ENOENT: NotFound,
    errno.ESRCH: NotFound,
    errno.EEXIST: AlreadyExists,
}


def _raise_if_failed(buffer: Buffer, start: int, end: int, what: str) -> None:
    """Raise if the end of a dump carries an error."""
    if end - start >= 4:
        (code,) = _ERROR.unpack_from(buffer, start)
        if code < 0:
            raise kernel_error(what, Refusal(-code))
