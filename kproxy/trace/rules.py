"""From the steps of a traced packet to lines: which base chain, through which others. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kproxy.kernel.nft.traced import TABLE_PREFIX, Hooked, Key, Traced
from kproxy.kernel.nft.types import Hook
from kproxy.trace.packet import Flow, Packet, parse_ip

Comment = Callable[[Traced], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A base chain that a packet went through: where it stands, and what happened in it."""

    hook: Hook
    text: str
    dropped: bool


@dataclass(frozen=True, slots=True)
class Traversal:
    """All steps of one packet in one namespace. ``iif``: 0 if it began there."""

    packet: Packet
    iif: int
    steps: Sequence[Traced]


def traversals(steps: Iterable[Traced]) -> list[Traversal]:
    """Return the packets that were traced in one namespace, in their order."""
    groups: dict[int, list[Traced]] = {}
    for step in steps:
        groups.setdefault(step.number, []).append(step)
    found = []
    for group in groups.values():
        told = next((one for one in group if one.network), None)
        packet = parse_ip(told.network + told.transport) if told is not None else None
        if told is not None and packet is not None:
            found.append(Traversal(packet, told.iif, group))
    return found


def of_flow(found: Iterable[Traversal], flow: Flow, iif: int) -> Traversal | None:
    """Return the traversal of the packet of this flow that came in by a device (0: by none)."""
    for one in found:
        if one.packet.flow == flow and one.iif == iif:
            return one
    return None


def passages(
    steps: Sequence[Traced], chains: Mapping[Key, Hooked], comment: Comment
) -> list[Passage]:
    """Return the base chains in which a rule did something, in order."""
    found: list[Passage] = []
    current: list[Traced] = []
    base: tuple[Key, Hooked] | None = None

    def close() -> None:
        if base is not None and (text := _text(base[0], current, comment)):
            dropped = any(one.verdict == "drop" for one in current)
            found.append(Passage(hook=base[1].hook, text=text, dropped=dropped))

    for step in steps:
        key = (step.family, step.table, step.chain)
        if step.table.startswith(TABLE_PREFIX):
            continue
        # A base chain is entered anew when another one, or its policy, ended the one before.
        if key in chains and (base is None or base[0] != key):
            close()
            base, current = (key, chains[key]), []
        current.append(step)
    close()
    return found


def _text(base: Key, steps: Sequence[Traced], comment: Comment) -> str:
    """Return what happened in a base chain; "": nothing but that the packet passed.

    Chains from which it came back are left out, unless a rule in them did something (a mark).
    """
    frames: list[list[str]] = [[]]
    done: list[str] = []
    busy: set[str] = set()
    for step in steps:
        verb, _, chain = step.verdict.partition(" ")
        if step.kind == "policy":
            done += ["policy drop"] if verb == "drop" else []
        elif verb == "jump":
            frames.append([chain + _noted(comment(step))])
        elif verb == "goto":
            frames[-1].append(chain + _noted(comment(step)))
        elif verb == "return" or (verb == "continue" and not step.handle):
            worth = _come_back(frames.pop(), step.chain in busy)
            frames = frames or [[]]  # it went from a base chain to another one for good
            frames[-1] += [f"{step.chain} and back"] if worth else []
        elif verb == "continue":
            busy.add(step.chain)
        else:
            done.append(verb + _noted(comment(step)))
    family, table, name = base
    parts = [part for frame in frames for part in frame] + done
    return f"{family} {table} {name}: {' > '.join(parts)}" if parts else ""


def _come_back(frame: Sequence[str], busy: bool) -> bool:
    """Return whether a chain from which a packet came back is worth a word."""
    return busy and len(frame) == 1


BY_COUNTERS = "by counters"
_HOOKS = {hook.name: hook for hook in Hook}
_DROPS = ("DROP", "REJECT")


def legacy_passages(met: Sequence[tuple[str, str, str, str, int]]) -> list[Passage]:
    """Return the base chains of iptables' legacy variant in which rules were met meanwhile.

    ``met`` are such rules (table, chain, target, comment, packets) in the order of the listing.
    """
    chains: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for table, chain, target, comment, _ in met:
        chains.setdefault((table, chain), []).append((target, comment))
    found = []
    for (table, chain), own in chains.items():
        if chain in _HOOKS:
            parts = _followed(chains, table, own, frozenset({chain}))
            text = f"legacy {table} {chain} ({BY_COUNTERS}): {' > '.join(parts)}"
            dropped = any(part.partition(" ")[0] in _DROPS for part in parts)
            found.append(Passage(hook=_HOOKS[chain], text=text, dropped=dropped))
    return found


def _followed(
    chains: Mapping[tuple[str, str], list[tuple[str, str]]],
    table: str,
    targets: list[tuple[str, str]],
    seen: frozenset[str],
) -> list[str]:
    """Return the targets of a chain's rules, each with what was met in it."""
    parts = []
    for target, comment in targets:
        if not target:
            continue
        parts.append(target + _noted(comment))
        if target not in seen:
            inner = chains.get((table, target), [])
            parts += _followed(chains, table, inner, seen | {target})
    return parts


def _noted(comment: str) -> str:
    return f" ({comment})" if comment else ""
