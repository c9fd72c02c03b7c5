"""What a program says, as much of it as is wanted: how it begins, how it ends, what is missing.

It is kept by whoever runs a program elsewhere, be it over the API or by another program.
"""

HEAD_MOST = TAIL_MOST = 2 * 1024 * 1024
"""Bytes that are kept of the beginning and of the end of an output."""


class Kept:
    """The head and the tail of an output, with a line between them that says what is missing."""

    def __init__(self, head_most: int = HEAD_MOST, tail_most: int = TAIL_MOST) -> None:
        self._head_most = head_most
        self._tail_most = tail_most
        self._head = bytearray()
        self._tail = bytearray()
        self.left_out = 0
        """Bytes that are missing."""

    def add(self, part: bytes) -> None:
        """Take what comes next."""
        room = self._head_most - len(self._head)
        self._head += part[:room]
        self._tail += part[room:]
        over = len(self._tail) - self._tail_most
        if over > 0:
            del self._tail[:over]
            self.left_out += over

    def text(self) -> str:
        """Return it as text; what is none becomes U+FFFD."""
        if not self.left_out:
            return (self._head + self._tail).decode(errors="replace")
        head, tail = (one.decode(errors="replace") for one in (self._head, self._tail))
        return f"{head}\n[{self.left_out} bytes are left out here]\n{tail}"
