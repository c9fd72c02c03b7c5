"""A network device as a value. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A device. ``kind`` is empty for a physical one; ``master`` is an index, 0 without one.

    ``link`` is the index of the device that it hangs on or whose other end it is (a veth's peer),
    perhaps in another namespace; 0: none. ``queues``: for sending.
    """

    index: int
    name: str
    kind: str = ""
    up: bool = True
    carrier: bool = True
    loopback: bool = False
    mac: str = ""
    mtu: int = 0
    master: int = 0
    link: int = 0
    queues: int = 1
