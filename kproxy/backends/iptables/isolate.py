"""Finding the few service ports whose rules are refused, so that all others get theirs. Pure.

A table takes all of a change or none. nf_tables names the rule that it refuses, and then its
service port is out; ip_tables only says that something was wrong, and then halves are tried.
"""

from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, field

from kproxy.desired.model import ServicePortName
from kproxy.kernel.iptables.types import RuleRefused

ATTEMPTS_MAX = 64
"""So many changes are tried in one sync; what is not found by then has to wait for the next."""

Owner = Callable[[RuleRefused], ServicePortName | None]
Attempt = Callable[[Set[ServicePortName], Set[ServicePortName]], None]
"""Write all but those that are refused and those that wait; may raise RuleRefused."""


@dataclass(slots=True)
class Isolated:
    """Whose rules are refused, and with whom it was not tried in the end."""

    refused: dict[ServicePortName, RuleRefused] = field(default_factory=dict)
    waiting: set[ServicePortName] = field(default_factory=set)


def isolate(suspects: Collection[ServicePortName], attempt: Attempt, owner: Owner) -> Isolated:
    """Write everything that can be written; return what cannot.

    Raises RuleRefused if it is refused without any of the suspects, too.
    """
    found = Isolated()
    # The last group is empty: then all that is wanted beside the suspects is written for sure.
    groups: list[list[ServicePortName]] = [[], sorted(suspects)]
    attempts = 0
    while groups:
        group = groups.pop()
        if attempts >= ATTEMPTS_MAX and group:
            found.waiting.update(group)
            continue
        attempts += 1
        waiting = found.waiting.union(*groups)
        try:
            attempt(found.refused.keys(), waiting)
        except RuleRefused as error:
            if not group:
                raise
            groups += _split(group, error, owner(error), found)
    return found


def _split(
    group: list[ServicePortName],
    error: RuleRefused,
    culprit: ServicePortName | None,
    found: Isolated,
) -> list[list[ServicePortName]]:
    if culprit in group:
        found.refused[culprit] = error
        rest = [name for name in group if name != culprit]
        return [rest] if rest else []
    if len(group) == 1:
        found.refused[group[0]] = error
        return []
    half = len(group) // 2
    return [group[half:], group[:half]]
