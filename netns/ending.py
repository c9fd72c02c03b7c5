"""How what a lab has made ends: processes first, then cards go home, then namespaces go."""

import contextlib
import logging
import os
from collections.abc import Iterable

from netns import namespace, nic
from netns.errors import NetnsError
from netns.journal import Journal, Ledger
from netns.nic import Taken
from netns.process import ProcessId, boot_id, kill_all, members

_KILL_ROUNDS = 100
_log = logging.getLogger(__name__)


def give_back(journal: Journal, cards: Iterable[Taken]) -> None:
    """Give cards back as they were, and write that down; what could not be is a warning."""
    for card in cards:
        for trouble in nic.give_back(card):
            _log.warning("a card is not as it was: %s", trouble)
        with contextlib.suppress(NetnsError):  # no room; to give it back twice is fine
            journal.append("returned", host=card.host, interface=card.interface)


def delete(namespaces: Iterable[str]) -> None:
    """Delete namespaces. Absent is fine."""
    for name in namespaces:
        namespace.delete(name)


def kill(namespaces: list[str], ledger: Ledger, host: str | None = None) -> None:
    """Kill who is in these namespaces, and who was started (in one host, or in all of them)."""
    places = {identity for each in namespaces if (identity := namespace.identity(each))}
    spared = ledger.visitors(places) | {ProcessId.of(os.getpid())}
    if ledger.boot == boot_id():
        kill_all(
            each
            for started_in, each in ledger.processes
            if host in (None, started_in) and each not in spared
        )
    for _ in range(_KILL_ROUNDS):  # who is killed may have forked just before
        found = [each for each in members(places) if each not in spared]
        if not found:
            return
        kill_all(found)
    raise NetnsError(f"processes in {', '.join(namespaces)} start faster than they can be killed")
