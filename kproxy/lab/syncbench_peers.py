"""What a backend's speed is compared with: plain tools and the kernel itself, on the same objects.

Each peer works in a namespace of its own, kept until the process ends:

* ``ipvs``: *replay*: all that the backend ever sent, recorded and prepared, is sent again, message
  by message the same, with nothing computed in between: the kernel's own limit. ``ipvsadm
  --restore`` of the same virtual servers.
* ``iptables``: ``iptables-restore`` of what ``iptables-save`` prints of the backend's rules;
* ``nftables``: ``nft -f`` of what ``nft list ruleset`` prints of them.

Reading is compared with a bare dump, that is read and thrown away. A change of one service is
compared with the tool's smallest change in the full table.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from kproxy.desired.model import State
from kproxy.errors import MeasurementError
from kproxy.kernel.execer import find_program
from kproxy.kernel.iptables.client import Iptables
from kproxy.lab import freshnet, syncbench_replay

TOOL_TIMEOUT_S = 3600.0
CHANGES = 5


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer took; ``seconds``: one for each time."""

    name: str
    seconds: list[float]


Peers = dict[str, list[Peer]]
"""By the step that they are compared with."""


def measure(mode: str, state: State, runs: int) -> Peers:
    """Measure the peers of a mode, in whose full table the calling thread is.

    It is in another namespace afterwards. A dump is one of that table: how long the tools read
    depends on the order in which it was written, too.
    """
    return _MEASURES[mode](mode, state, runs)


def _ipvs(mode: str, state: State, runs: int) -> Peers:
    # Of the virtual servers only: the tool cannot make the rest.
    text = _output("ipvsadm", "-Sn") if find_program("ipvsadm") else ""
    dumps = _ipvs_dumps(runs)
    recording = syncbench_replay.record(mode, state)
    _enter()
    prepared = syncbench_replay.prepare(recording)
    cold = [Peer(name="replay of prepared messages", seconds=[_timed(prepared.replay)])]
    found: Peers = {"cold": cold, "resync": dumps, "noop": dumps}
    if text:
        _enter()
        cold.append(
            Peer(
                name="ipvsadm --restore",
                seconds=[_timed(lambda: _feed(("ipvsadm", "--restore"), text))],
            )
        )
        found["service"] = [Peer(name="ipvsadm -A", seconds=_changes(_added_service))]
        found["endpoint"] = [Peer(name="ipvsadm -a", seconds=_changes(_added_server))]
    return found


def _ipvs_dumps(runs: int) -> list[Peer]:
    with syncbench_replay.BareDump() as dump:
        ways = (("GET_SERVICE, GET_DEST for each", dump.netlink), ("/proc/net/ip_vs", dump.proc))
        return [
            Peer(name=f"bare dump: {name}", seconds=[_timed(way) for _ in range(runs)])
            for name, way in ways
        ]


def _added_service(number: int) -> tuple[Sequence[str], str]:
    return ("ipvsadm", "-A", "-t", f"192.0.2.{number}:80"), ""


def _added_server(number: int) -> tuple[Sequence[str], str]:
    server = f"198.51.100.{number}:80"
    return ("ipvsadm", "-a", "-t", "192.0.2.1:80", "-r", server, "-m"), ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tool:
    """A tool that loads and lists rules, and makes the smallest change to them."""

    load: Sequence[str]
    dump: Sequence[str]
    change: tuple[str, Callable[[int], tuple[Sequence[str], str]]]
    """What it is called, and how the change of a number is made."""


def _iptables(mode: str, state: State, runs: int) -> Peers:
    tools = Iptables().tools()
    name = f"{Path(tools.restore).name} --noflush of one chain"

    def change(number: int) -> tuple[Sequence[str], str]:
        rules = f"*nat\n:BENCH-{number} - [0:0]\n-A BENCH-{number} -j RETURN\nCOMMIT\n"
        return (tools.restore, "--noflush"), rules

    tool = _Tool(load=(tools.restore,), dump=(tools.save,), change=(name, change))
    return _loaded(tool, _output(tools.save), runs)


def _nftables(mode: str, state: State, runs: int) -> Peers:
    if find_program("nft") is None:
        return {}
    load, dump = ("nft", "-f", "-"), ("nft", "list", "ruleset")
    text = _output(*dump)
    table = text.split("{", 1)[0].strip().removeprefix("table ")

    def change(number: int) -> tuple[Sequence[str], str]:
        chain = f"{table} bench-{number}"
        return load, f"add chain {chain}\nadd rule {chain} return\n"

    tool = _Tool(load=load, dump=dump, change=("nft -f of one chain", change))
    return _loaded(tool, loadable_listing(text), runs)


def _loaded(tool: _Tool, text: str, runs: int) -> Peers:
    """Measure a tool on a rule set: reading where the backend wrote it, loading elsewhere."""
    seconds = [_timed(lambda: _output(*tool.dump)) for _ in range(runs)]
    dump = [Peer(name=_words(tool.dump), seconds=seconds)]
    found: Peers = {"noop": dump, "resync": dump}
    _enter()
    try:
        cold = _timed(lambda: _feed(tool.load, text))
    except MeasurementError as error:
        # Not every version of a tool takes what it lists on every kernel.
        print(f"kproxy: no peer for loading and changes: {error}", file=sys.stderr)
        return found
    name, make = tool.change
    change = [Peer(name=name, seconds=_changes(make))]
    cold_peer = Peer(name=_words(tool.load), seconds=[cold])
    return {**found, "cold": [cold_peer], "endpoint": change, "service": change}


def _words(argv: Sequence[str]) -> str:
    return " ".join((Path(argv[0]).name, *argv[1:])).removesuffix(" -")


_SELECTORS = {
    "inet_proto": "meta l4proto",
    "ipv4_addr": "ip daddr",
    "inet_service": "th dport",
    "mark": "numgen random mod 2",
}
_NUMBERED_KEY = re.compile(r"^(\t+)type ((?:\w+ \. )+mark : [\w .]+)$", re.MULTILINE)


def loadable_listing(text: str) -> str:
    """Return what ``nft list ruleset`` printed so that ``nft -f`` takes it.

    A number that is drawn has no type of its own that nft could list, so a map that is asked with
    one is listed as one of packet marks, in which nft then refuses to look a number up. By
    ``typeof`` it is told which kind of number is meant.
    """

    def typed(found: re.Match[str]) -> str:
        sides = found[2].split(" : ")
        kinds = (" . ".join(_SELECTORS[word] for word in side.split(" . ")) for side in sides)
        return f"{found[1]}typeof {' : '.join(kinds)}"

    return _NUMBERED_KEY.sub(typed, text)


_MEASURES: dict[str, Callable[[str, State, int], Peers]] = {
    "ipvs": _ipvs,
    "iptables": _iptables,
    "nftables": _nftables,
}


def _enter() -> None:
    freshnet.enter_fresh()
    freshnet.hold()


def _changes(make: Callable[[int], tuple[Sequence[str], str]]) -> list[float]:
    """Time some changes of one thing, each a run of the tool."""
    commands = [make(number) for number in range(1, CHANGES + 1)]
    return [_timed(partial(_feed, *command)) for command in commands]


def _timed(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def _feed(argv: Sequence[str], text: str) -> None:
    done = subprocess.run(
        argv, input=text, text=True, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise MeasurementError(f"{' '.join(argv)}: {done.stderr.strip()[-300:]}")


def _output(*argv: str) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise MeasurementError(f"{' '.join(argv)}: {done.stderr.strip()[-300:]}")
    return done.stdout
