"""What monitors do not see yet, in words."""

import pytest

from kproxy.lab.whole.monitors import Monitors, Target, Watch

HOSTS = ("monitor1", "monitor2")
DOWN = Target(job="kubelet", instance="192.0.2.1:10250", health="down", error="refused")


class Told(Monitors):
    """Monitors that see what they are told."""

    def __init__(self, **first: object) -> None:
        self._first = first

    def watch(self, host: str) -> Watch:
        made = Watch(host=host, targets=3, peers=2)
        for name, value in (self._first if host == HOSTS[0] else {}).items():
            setattr(made, name, value)
        return made


def test_nothing_is_missing_when_both_see_everything() -> None:
    assert Told().missing(HOSTS) == []
    assert Told().missing(()) == []


@pytest.mark.parametrize(
    ("sees", "words"),
    [
        ({"trouble": ["Prometheus on monitor1 does not answer: refused"]}, "monitor1 to answer"),
        ({"targets": 0}, "monitor1 to find whom to ask"),
        ({"unknown": 1}, "monitor1 to have asked everybody"),
        ({"down": [DOWN]}, "kubelet at 192.0.2.1:10250 (refused)"),
        ({"peers": 1}, "Alertmanager on monitor1 to see the others"),
    ],
)
def test_what_is_missing_is_told(sees: dict[str, object], words: str) -> None:
    assert Told(**sees).missing(HOSTS) == [words]
