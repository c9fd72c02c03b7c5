"""What an old mode has left behind: found by comparing three readings of kernels."""

from kproxy.lab import inventory
from kproxy.lab.inventory import Item
from kproxy.traffic.switchset import LeftBehind

SERVER, SET, SHARED = (
    Item("virtual server", "tcp 10.96.0.10:80"),
    Item("IP set", "KUBE-CLUSTER-IP"),
    Item("chain", "iptables nat KUBE-SERVICES"),
)


def test_what_was_there_and_still_is_was_left_unless_the_new_mode_has_it() -> None:
    before, fresh = frozenset({SERVER, SET, SHARED}), frozenset({SHARED})
    own = Item("chain", "iptables nat KUBE-SVC-NEW")
    after = frozenset({SET, SHARED, own})
    assert inventory.left_behind(before, after, fresh) == (
        LeftBehind(kind="IP set", names=("KUBE-CLUSTER-IP",)),
    )
    assert inventory.left_behind(before, frozenset({SHARED, own}), fresh) == ()


def test_kinds_and_names_are_in_order() -> None:
    found = frozenset(Item(kind, name) for kind in ("switch", "IP set") for name in ("b", "a"))
    assert inventory.left_behind(found, found, frozenset()) == (
        LeftBehind(kind="IP set", names=("a", "b")),
        LeftBehind(kind="switch", names=("a", "b")),
    )
