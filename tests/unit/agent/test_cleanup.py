"""``kproxy proxy --cleanup``: every mode gets its turn, and is told of in one line."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from kproxy.agent import cleanup
from kproxy.backends import base
from kproxy.cli import nodeproxy
from kproxy.desired.model import Family
from kproxy.errors import KernelError, Unsupported
from kproxy.logs import Log

BUSY = KernelError("delete chain", 16, "Device or resource busy")


class PretendedBackend:
    """Holds so many objects of a mode in each family, or cannot let go of them."""

    held: ClassVar[Mapping[str, Any]] = {}
    opened: ClassVar[list["PretendedBackend"]] = []

    def __init__(self, mode: str, family: Family) -> None:
        self._content = self.held[mode]
        self.place = mode, family
        self.closed = False
        self.opened.append(self)

    def supported(self) -> str | None:
        return "this kernel lacks it" if self._content is None else None

    def cleanup(self, *, keep_chains: bool = False) -> int:
        self.kept_chains = keep_chains
        if isinstance(self._content, Exception):
            raise self._content
        assert isinstance(self._content, int)
        return self._content

    def close(self) -> None:
        self.closed = True


def clean(monkeypatch: pytest.MonkeyPatch, **held: Any) -> type[PretendedBackend]:
    class Backend(PretendedBackend):
        pass

    Backend.held, Backend.opened = held, []
    monkeypatch.setattr(base, "BACKENDS", held)
    monkeypatch.setattr(base, "loader", lambda mode: lambda family, options: Backend(mode, family))
    return Backend


def test_every_mode_and_family_gets_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = clean(
        monkeypatch, busy=BUSY, absent=None, odd=Unsupported("no IPv6 here"), full=21, empty=0
    )
    done = cleanup.clean_up(Log("test", "error"))
    assert [str(one) for one in done] == [
        "busy: not all removed: delete chain: Device or resource busy (and 1 more)",
        "absent: nothing to remove: this kernel lacks it",
        "odd: nothing to remove: no IPv6 here",
        "full: 42 objects removed",
        "empty: nothing to remove",
    ]
    assert [one.place for one in backend.opened] == [
        (mode, family) for mode in backend.held for family in Family
    ]
    assert all(one.closed for one in backend.opened)


@pytest.mark.parametrize(("ipvs", "code"), [(3, 0), (0, 0), (None, 0), (BUSY, 1)])
def test_the_exit_code_tells_whether_all_is_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ipvs: Any, code: int
) -> None:
    clean(monkeypatch, ipvs=ipvs, iptables=1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert nodeproxy.main(["--cleanup"]) == code
    said = capsys.readouterr()
    assert "kproxy proxy: iptables: 2 objects removed" in said.out.splitlines()
    assert ("ipvs: not all removed" in said.err) == bool(code)


def test_a_mode_in_use_is_spared_and_so_are_the_chains_it_shares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = clean(monkeypatch, ipvs=3, iptables=1, nftables=2)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    kept = {}
    for spared in backend.held:
        backend.opened.clear()
        assert nodeproxy.main([f"--cleanup-except={spared}"]) == 0
        kept[spared] = {one.place[0]: one.kept_chains for one in backend.opened}
    assert kept == {
        "ipvs": {"iptables": True, "nftables": False},
        "iptables": {"ipvs": True, "nftables": False},
        "nftables": {"ipvs": False, "iptables": False},
    }
    assert nodeproxy.main(["--cleanup-except=userspace"]) == 2
    assert "there is no mode 'userspace'" in capsys.readouterr().err


def test_without_root_nothing_is_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = clean(monkeypatch, ipvs=3)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert nodeproxy.main(["--cleanup"]) == 2
    assert "run it as root" in capsys.readouterr().err
    assert backend.opened == []
