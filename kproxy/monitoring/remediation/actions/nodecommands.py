"""Actions that are a command of ``kproxy node`` on the node that an alert names.

The command looks first, repairs only what it saw, and looks again; what it prints is
:class:`kproxy.monitoring.nodecare.seen.Care`. So ``check`` and ``verify`` are its dry run.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from kproxy.errors import KproxyError
from kproxy.monitoring.nodecare.seen import Care, Look
from kproxy.monitoring.remediation.seams import (
    Finished,
    Limits,
    NodeAccess,
    NodeUnreachable,
    Outcome,
    Target,
    Tools,
    Verdict,
)

T = TypeVar("T")

LOOK_WITHIN_S = 12.0
CARE_WITHIN_S = 45.0
NO_PROGRAM = (126, 127)
"""Exit codes of who cannot find or execute a program."""


class NodeCommands:
    """``kproxy node`` on nodes. ``options.kproxy``: the words that are ``kproxy`` there."""

    def __init__(self, nodes: NodeAccess, options: Mapping[str, str]) -> None:
        self._nodes = nodes
        self._kproxy = tuple(shlex.split(options.get("kproxy", "kproxy")))

    def look(self, node: str) -> Look:
        """Look at a node. Raises KproxyError if that is not possible."""
        return self._run(node, ["look"], LOOK_WITHIN_S, Look)

    def care(self, node: str, verb: str, *, dry_run: bool) -> Care:
        """Run one care. Raises KproxyError if it could not look."""
        words = [verb, "--dry-run"] if dry_run else [verb]
        return self._run(node, words, LOOK_WITHIN_S if dry_run else CARE_WITHIN_S, Care)

    def _run(self, node: str, words: Sequence[str], within_s: float, type_: type[T]) -> T:
        bound = ["node", f"--within={math.ceil(within_s)}"]
        command = [*self._kproxy, *bound, *words, "--json"]
        ended = self._nodes.run(node, command, within_s + 1.0)
        what = f"node {node}: kproxy node {words[0]}"
        if ended.timed_out:
            raise KproxyError(f"{what}: no end within {within_s:g} s")
        if ended.code in NO_PROGRAM:
            raise NodeUnreachable(f"{what}: {_last(ended)}")
        try:
            return msgspec.json.decode(ended.stdout, type=type_)
        except msgspec.DecodeError:
            raise KproxyError(f"{what}: exit code {ended.code}: {_last(ended)}") from None


class NodeCare:
    """An action that is one care; see the module."""

    needs = frozenset({"node"})
    limits = Limits(
        runs=6,
        cool_down=120.0,
        check_within=LOOK_WITHIN_S + 3,
        run_within=CARE_WITHIN_S + 5,
        verify_within=60.0,
    )

    def __init__(self, tools: Tools, name: str, verb: str, summary: str) -> None:
        self.name = name
        self.summary = summary
        self._verb = verb
        self._commands = NodeCommands(tools.nodes, tools.options)

    def check(self, target: Target) -> Verdict:
        """Return whether the node has what this repairs."""
        planned = self._commands.care(target.node, self._verb, dry_run=True)
        if planned.refused:
            return Verdict(False, planned.refused)
        if not planned.found:
            return Verdict(False, f"node {target.node} has nothing of this to repair")
        return Verdict(True, _list(planned.found))

    def run(self, target: Target) -> Outcome:
        """Repair it."""
        done = self._commands.care(target.node, self._verb, dry_run=False)
        if done.refused:
            return Outcome(
                False, f"{_list(done.done)}: {done.refused}" if done.done else done.refused
            )
        return Outcome(True, _list(done.done) or "nothing was left to do")

    def verify(self, target: Target) -> Verdict:
        """Return whether nothing of this is left on the node."""
        planned = self._commands.care(target.node, self._verb, dry_run=True)
        if planned.found:
            return Verdict(False, f"still: {_list(planned.found)}")
        return Verdict(True, f"node {target.node} has nothing of this any more")


def resync(tools: Tools) -> NodeCare:
    """Let the node's proxy read its kernel anew and put it right at once.

    Costs nothing: what is right stays. Helps against rules that a stranger has changed or removed;
    not where the proxy hangs or its watch is stuck: then it is refused, with the reason.
    """
    return NodeCare(
        tools,
        "resync-proxy",
        "resync",
        "Let the node's proxy read the kernel anew and put right what differs. Costs nothing.",
    )


def heal_weights(tools: Tools) -> NodeCare:
    """Give real servers of IPVS their weight that are wanted and are stuck at 0.

    Costs nothing: they get new connections again. Those that drain keep their 0.
    """
    return NodeCare(
        tools,
        "heal-weights",
        "heal-weights",
        "Give wanted real servers of IPVS that are stuck at weight 0 their weight. Costs nothing.",
    )


def clean_conntrack(tools: Tools) -> NodeCare:
    """Forget tracked UDP flows whose service leads them to an endpoint that is gone.

    Costs nothing that is not lost already: the next packet of such a flow takes a new way. Flows
    to endpoints that serve stay. While the kernel's rules lead there as well it is refused.
    """
    return NodeCare(
        tools,
        "clean-conntrack",
        "clean-conntrack",
        "Forget tracked UDP flows to endpoints that are gone. Healthy flows are not touched.",
    )


def _list(found: Sequence[str], most: int = 3) -> str:
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(found[:most]) + more


def _last(ended: Finished) -> str:
    text = ended.stderr.strip() or ended.stdout.strip()
    return text.rpartition("\n")[2][:300] or f"exit code {ended.code}"
