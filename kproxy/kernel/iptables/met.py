"""Which rules of iptables' legacy variant packets have met meanwhile, by their counters.

ip_tables has no trace that goes with its process, as nf_tables has. Counters say that a packet met
a rule, not which one.
"""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kproxy.errors import KernelError, Unsupported
from kproxy.kernel.counters import proc
from kproxy.kernel.execer import Execer, ExecerClient
from kproxy.kernel.inet import Family

_TOOLS = {Family.IPV4: "iptables-legacy-save", Family.IPV6: "ip6tables-legacy-save"}


class Met(NamedTuple):
    """A rule, and how many packets have met it. ``target`` is empty where it only counts."""

    table: str
    chain: str
    target: str
    comment: str
    packets: int


def parse(listing: str) -> Iterator[Met]:
    """Yield the rules of what ``iptables-save -c`` prints."""
    table = ""
    for line in listing.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("["):
            words = shlex.split(line)
            packets = int(words[0].strip("[]").partition(":")[0])
            options = dict(itertools.pairwise(words))
            target = options.get("-j") or options.get("-g") or ""
            yield Met(table, options["-A"], target, options.get("--comment", ""), packets)


def counted(family: Family, execer: ExecerClient | None = None) -> list[Met]:
    """Return the rules of this namespace with their counters; none where there are none.

    To ask for tables that are not there would make them, so the tool is run only if there are.
    """
    if not proc.legacy_tables(family):
        return []
    try:
        done = (execer or Execer()).run([_TOOLS[family], "-c"])
    except (KernelError, Unsupported):
        return []
    return list(parse(done.stdout.decode(errors="replace"))) if done.returncode == 0 else []


def since(before: Sequence[Met], after: Sequence[Met]) -> list[Met]:
    """Return the rules that packets have met in between; none if the rules have changed."""
    if [one[:4] for one in before] != [one[:4] for one in after]:
        return []
    return [new for old, new in zip(before, after, strict=True) if new.packets > old.packets]
