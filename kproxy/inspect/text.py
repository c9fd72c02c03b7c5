"""Answers as lines for people: what is met first comes first, reasons are indented below."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from kproxy.api.addresses import with_port
from kproxy.backends.base import Deviation, Difference
from kproxy.desired.model import Endpoint

from .answers import Agreement, Answer, Match
from .flows import IPVS, Fate, Prediction, Share
from .kernel import Comparison
from .views import EndpointView
from .world import World

HANG = 6
"""Columns by which reasons are indented, and what is left of a line that has to be broken."""

SHOWN_MAX = 10
"""So many endpoints are listed by name; JSON has them all."""

SCHEDULERS = {
    "rr": "each in turn",
    "wrr": "in turn, by weight",
    "lc": "the one with the fewest connections",
    "wlc": "the one with the fewest connections, by weight",
    "sh": "by a hash of the client's address",
    "dh": "by a hash of the destination",
    "mh": "by a hash of the client's address",
    "sed": "the shortest expected delay",
    "nq": "an idle one, else the shortest expected delay",
}


def fitted(lines: Iterable[str], width: int) -> Iterator[str]:
    """Break lines between words, for a terminal of so many columns.

    What is indented by more than reasons are is left: rules that may be copied.
    """
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if len(line) <= width or indent > HANG:
            yield line
            continue
        yield from textwrap.wrap(
            line,
            width,
            subsequent_indent=" " * HANG if indent else "",
            break_long_words=False,
            break_on_hyphens=False,
        )


def answer(found: Answer) -> list[str]:
    """Return the answer to ``kproxy explain``."""
    if not found.matches:
        return _unknown(found)
    lines: list[str] = []
    for match in found.matches:
        lines += ["", *_match(found, match)] if lines else _match(found, match)
    return lines


def _match(found: Answer, match: Match) -> list[str]:
    world, service = found.world, match.view.state.service
    target = f"{with_port(found.target.address, found.target.port)}/{service.protocol}"
    lines = [f"{target} is the {match.kind} of {service.name} ({_about(world)})", ""]
    lines += ["Endpoints", *_endpoints(match.view.endpoints)]
    lines += [f"  note: {note}" for note in match.view.notes]
    lines += ["", "First packet of a connection", *_packets(match.predictions)]
    lines += ["", *_choice(world, match), *_agreement(match.kernel)]
    return lines


def _about(world: World) -> str:
    zone = f", zone {world.node.zone}" if world.node.zone else ""
    return f"mode {world.mode}, node {world.node.name}{zone}"


def _endpoints(views: Sequence[EndpointView]) -> Iterator[str]:
    if not views:
        yield "  none in any EndpointSlice"
    used = [one for one in views if one.used]
    others = [one for one in views if not one.used]
    shown = [*used[:SHOWN_MAX], *others[:SHOWN_MAX]]
    names = {id(one): with_port(one.endpoint.address, one.endpoint.port) for one in shown}
    width = max(map(len, names.values()), default=0)
    for one in shown:
        where = "this node" if one.endpoint.local else "elsewhere"
        state = "used" if one.used else "not used"
        why = f"{', ' if one.used else ': '}{one.why}" if one.why else ""
        yield f"  {names[id(one)]:{width}}  {where}  {state}{why}"
    if len(views) > len(shown):
        yield f"  … and {len(views) - len(shown)} more (--json has all)"


def _packets(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Say what becomes of packets, once for all sources that fare alike."""
    alike: dict[tuple[str, tuple[str, ...]], list[Prediction]] = {}
    for one in predictions:
        alike.setdefault((fate(one), one.reasons), []).append(one)
    for (end, reasons), those in alike.items():
        everybody = len(alike) == 1 and len(those) > 1
        whence = "anywhere" if everybody else ", ".join(str(one.source) for one in those)
        yield f"  from {whence}: {end}"
        yield from (" " * HANG + reason for reason in reasons)


def fate(prediction: Prediction) -> str:
    """Return in a few words what becomes of a packet."""
    match prediction.fate:
        case Fate.REFUSED:
            return "refused (ICMP port unreachable)"
        case Fate.DROPPED:
            return "dropped, so the client waits in vain"
        case Fate.PASSES:
            return "passes as it came, taken by no rule"
        case Fate.NODE:
            return "goes to a process of this node, refused if none listens"
    return f"→ {_shares(prediction.shares)}"


def _shares(shares: Sequence[Share]) -> str:
    notes = {_note(share) for share in shares}
    shown = [
        f"{_name(share.endpoint)} {share.probability:.0%}"
        + ("" if len(notes) == 1 else f" {_note(share)}")
        for share in shares[:SHOWN_MAX]
    ]
    if len(shares) > SHOWN_MAX:
        shown.append(f"… and {len(shares) - SHOWN_MAX} more")
    return " or ".join(shown) + (f" {_note(shares[0])}" if len(notes) == 1 else "")


def _note(share: Share) -> str:
    if not share.answered:
        return "(source kept, answers are lost)"
    return "(masqueraded)" if share.masqueraded else "(source kept)"


def _name(endpoint: Endpoint) -> str:
    return with_port(endpoint.address, endpoint.port)


def _choice(world: World, match: Match) -> Iterator[str]:
    """Say how one of several endpoints is chosen, and for how long."""
    if not any(len(one.shares) > 1 for one in match.predictions):
        return
    if world.mode == IPVS:
        way = SCHEDULERS.get(world.scheduler, "as the scheduler says")
        how = f"by IPVS, {way} (scheduler {world.scheduler})"
    else:
        how = "at random"
    seconds = match.view.state.service.affinity_seconds
    kept = "; later packets of the connection go the same way"
    if seconds is not None:
        kept = (
            f"; new connections of the same client address go there, too, until none has come "
            f"for {seconds} s (sessionAffinity ClientIP)"
        )
    yield f"Chosen {how}{kept}."


def _agreement(kernel: Agreement) -> Iterator[str]:
    if kernel.unasked:
        yield f"Kernel: not asked, {kernel.unasked}."
    elif not kernel.differences:
        yield "Kernel: holds what is wanted."
    else:
        yield f"Kernel: differs, {counted(kernel.differences)}; packets may fare otherwise:"
        shown = kernel.differences[:SHOWN_MAX]
        yield from (f"  {line}" for one in shown for line in difference(one))
        if len(kernel.differences) > len(shown):
            yield f"  … and {len(kernel.differences) - len(shown)} more (kproxy diff has all)"


def _unknown(found: Answer) -> list[str]:
    target = found.target
    known = {
        True: "the address is in a service network",
        False: "the address is in no service network",
        None: "where ClusterIPs come from is not known",
    }[found.in_service_network]
    lines = [f"{target} belongs to no service ({_about(found.world)}); {known}", ""]
    lines += ["First packet of a connection", *_packets(found.predictions)]
    if found.near:
        lines += ["", "Perhaps meant", *(f"  {miss}" for miss in found.near)]
    return lines


def comparisons(mode: str, found: Sequence[Comparison]) -> list[str]:
    """Return what ``kproxy diff`` prints."""
    lines: list[str] = []
    everything = [one for each in found for one in each.differences]
    for each in found:
        for one in each.differences:
            lines += difference(one)
    families = "; ".join(
        f"{each.family} not compared: {each.skipped}" if each.skipped else each.family
        for each in found
    )
    what = counted(everything) if everything else "the kernel holds what is wanted"
    return [*lines, f"{what} (mode {mode}; {families})"]


def counted(differences: Sequence[Difference]) -> str:
    """Return how many differences there are, and of which kinds."""
    parts = [
        f"{count} {deviation}"
        for deviation in Deviation
        if (count := sum(one.deviation is deviation for one in differences))
    ]
    noun = "difference" if len(differences) == 1 else "differences"
    return f"{len(differences)} {noun}: {', '.join(parts)}"


def difference(one: Difference) -> Iterator[str]:
    """Return a difference in one line, and what was wanted and found below."""
    owner = f"  ({one.service})" if one.service else ""
    yield f"{one.deviation:10}  {one.kind} {one.name}{owner}"
    if one.want:
        yield f"              want {one.want}"
    if one.have:
        yield f"              have {one.have}"
