"""What happened to the packets of one part of a trial, as arrays. Pure.

Flows are *rows* here, numbered from 0 in the order in which they first appear. The arrays of a
part are sorted by row and sequence number, so that neighbours are packets that follow each other;
the last packet of the part before (a *tail*) stands before its flow's first one, and whatever
lies across the border of two parts is seen like everything else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kproxy.traffic import records

Array = NDArray[Any]

PACKET = np.dtype(
    [
        *(("row", "i4"), ("pod", "i4"), ("rank", "i4")),
        *((name, "i8") for name in ("seq", "ns", "received_ns")),
    ]
)
"""A packet that was sent; ``received_ns`` and ``pod`` are -1 if it never arrived. ``rank`` is its
place in the order of arrival, within its part."""

_AROUND = ("ordinal", "seq", "ns", "good_seq", "good_ns", "good_received_ns")
_EDGE = np.dtype([("row", "i4"), *((name, "i8") for name in _AROUND)])
"""Where a loss period begins or ends: its first or last lost packet, and the good packet before
or after it (``good_received_ns`` -1: there was none). ``ordinal`` counts a flow's packets: that of
the first lost one, or of the first good one."""

PERIOD = np.dtype(
    [
        *(("row", "i4"), ("flow", "i8"), ("ordinal", "i8"), ("lost", "i8")),
        *((f"{which}_{name}", "i8") for which in ("first", "last") for name in ("seq", "ns")),
        *((f"before_{name}", "i8") for name in ("seq", "ns", "received_ns")),
        *((f"after_{name}", "i8") for name in ("seq", "ns", "received_ns")),
    ]
)
"""A loss period (RFC 3357): so many consecutive packets of a flow that were lost, from its
``ordinal``-th on, and the good packets around them (``…_received_ns`` -1: there was none)."""

SEQ_BITS = 40
"""How many bits of a key are the sequence number's."""


@dataclass(frozen=True, slots=True)
class Part:
    """The packets that were sent, sorted, and what else arrived.

    That is: the rows of repeated arrivals, of packets of an earlier part, and how many arrived
    that nobody sent.
    """

    packets: Array
    duplicates: Array
    belated: Array
    strangers: int


@dataclass(frozen=True, slots=True)
class Edges:
    """Where loss periods begin and end, and the gaps between packets that follow each other."""

    begins: Array
    ends: Array
    gap_rows: Array
    gaps: Array


def match(
    sent: Array, rows: Array, received: Iterable[tuple[int, Array, Array]], passed: Array
) -> Part:
    """Find the first arrival of every packet of a part.

    ``rows`` are those of ``sent``; ``received`` has the number of a pod, what it received in the
    order of arrival, and the rows of that, -1 for flows that nobody sent. ``passed`` has the
    greatest sequence number of each row in the parts before, -1 for none.
    """
    went = sent["status"] == records.STATUS_SENT
    sent, rows = sent[went], rows[went]
    order = np.lexsort((sent["seq"], rows))
    packets = np.zeros(len(sent), PACKET)
    packets["row"], packets["seq"] = rows[order], sent["seq"][order]
    packets["ns"] = sent["ns"][order]
    packets["received_ns"] = packets["pod"] = -1
    at, place, pod, others = _places(keys(packets["row"], packets["seq"]), received)
    known = others[others["row"] >= 0]
    belated = known["row"][known["seq"] <= passed[known["row"]]]
    # In the order of arrival; equal times stay in the order in which their pod had them.
    order = np.argsort(at, kind="stable")
    at, place, pod = at[order], place[order], pod[order]
    distinct, first = np.unique(place, return_index=True)
    packets["received_ns"][distinct] = at[first]
    packets["pod"][distinct] = pod[first]
    packets["rank"][distinct] = first
    again = np.ones(len(place), bool)
    again[first] = False
    return Part(packets, packets["row"][place[again]], belated, len(others) - len(belated))


def keys(flows: Array, seq: Array) -> Array:
    """Return flow (or row) and sequence number of packets as one number each, in that order."""
    found: Array = (flows.astype("u8") << np.uint64(SEQ_BITS)) | seq.astype("u8")
    return found


def _places(
    ordered: Array, received: Iterable[tuple[int, Array, Array]]
) -> tuple[Array, Array, Array, Array]:
    """Return time, place among the sent packets and pod of all arrivals; and those without one.

    ``ordered`` are the keys of the sent packets.
    """
    times, places, pods = [np.zeros(0, "i8")], [np.zeros(0, "i8")], [np.zeros(0, "i4")]
    others = [np.zeros(0, PACKET)]
    for pod, arrived, rows in received:
        wanted = keys(np.maximum(rows, 0), arrived["seq"])
        place = np.searchsorted(ordered, wanted)
        known = (rows >= 0) & (place < len(ordered))
        known[known] = ordered[place[known]] == wanted[known]
        others.append(np.zeros(len(known) - int(known.sum()), PACKET))
        others[-1]["row"], others[-1]["seq"] = rows[~known], arrived["seq"][~known]
        times.append(arrived["received_ns"][known])
        places.append(place[known])
        pods.append(np.full(len(times[-1]), pod, "i4"))
    return (
        np.concatenate(times),
        np.concatenate(places),
        np.concatenate(pods),
        np.concatenate(others),
    )


def bad(packets: Array, tmax_ns: int) -> Array:
    """Return which packets were lost: they did not arrive, or not within Tmax."""
    received = packets["received_ns"]
    lost: Array = (received < 0) | (received - packets["ns"] > tmax_ns)
    return lost


def overtaken(arrived: Array) -> Array:
    """Return which of a part's arrivals came after a later packet of their flow.

    A packet is reordered if a greater sequence number arrived before it: that is, if the least
    rank among the packets behind it is smaller than its own.
    """
    if not len(arrived):
        return np.zeros(0, bool)
    # Ranks of a row lie above those of the rows before it, so one sweep does for all rows.
    stacked = arrived["row"].astype("i8") * (int(arrived["rank"].max()) + 1) + arrived["rank"]
    least = np.minimum.accumulate(stacked[::-1])[::-1]
    found = np.zeros(len(arrived), bool)
    found[:-1] = least[1:] < stacked[:-1]
    return found


def edges(packets: Array, tails: Array, counted: Array, tmax_ns: int) -> Edges:
    """Compare each packet with the one of its flow before it.

    ``tails`` and ``counted`` have, for each row, the last packet of the parts before and how many
    there were.
    """
    present = np.unique(packets["row"])
    before = tails[present]
    before = before[before["row"] >= 0]
    whole = np.concatenate([before, packets])
    whole = whole[np.argsort(whole["row"], kind="stable")]
    row, lost = whole["row"], bad(whole, tmax_ns)
    starts = np.searchsorted(row, row)
    has_tail = tails["row"][row] >= 0
    ordinal = counted[row] - has_tail + np.arange(len(whole)) - starts
    follows = np.zeros(len(whole), bool)
    follows[1:] = row[1:] == row[:-1]
    was_lost = np.zeros(len(whole), bool)
    was_lost[1:] = lost[:-1]
    begins = np.flatnonzero(lost & np.where(follows, ~was_lost, ~has_tail))
    ends = np.flatnonzero(~lost & follows & was_lost)
    pairs = np.flatnonzero(follows)
    return Edges(
        begins=_edge(whole, begins, begins - 1, ordinal[begins], follows[begins]),
        ends=_edge(whole, ends - 1, ends, ordinal[ends], np.ones(len(ends), bool)),
        gap_rows=row[pairs],
        gaps=whole["ns"][pairs] - whole["ns"][pairs - 1],
    )


def _edge(whole: Array, lost: Array, good: Array, ordinal: Array, known: Array) -> Array:
    found = np.zeros(len(lost), _EDGE)
    found["row"], found["ordinal"] = whole["row"][lost], ordinal
    found["seq"], found["ns"] = whole["seq"][lost], whole["ns"][lost]
    for name in ("seq", "ns", "received_ns"):
        found[f"good_{name}"] = np.where(known, whole[name][good], -1)
    return found


def periods(begins: Sequence[Array], ends: Sequence[Array], counted: Array, tails: Array) -> Array:
    """Put the edges of all parts together to loss periods, by row and time.

    The last period of a row has no end if the row's last packet, its tail, was lost.
    """
    begin, end = _sorted(begins), _sorted(ends)
    found = np.zeros(len(begin), PERIOD)
    found["row"], found["ordinal"] = begin["row"], begin["ordinal"]
    found["first_seq"], found["first_ns"] = begin["seq"], begin["ns"]
    # The end of a period is the first one of its row at or after its begin.
    ends_at = keys(end["row"], end["ordinal"])
    place = np.searchsorted(ends_at, keys(begin["row"], begin["ordinal"]))
    closed = place < len(end)
    closed[closed] = end["row"][place[closed]] == begin["row"][closed]
    its_end = end[place[closed]]
    stop = counted[begin["row"]]
    stop[closed] = its_end["ordinal"]
    found["lost"] = stop - begin["ordinal"]
    for name in ("seq", "ns"):
        found[f"last_{name}"] = tails[name][begin["row"]]
        found[f"last_{name}"][closed] = its_end[name]
    for name in ("seq", "ns", "received_ns"):
        found[f"before_{name}"] = begin[f"good_{name}"]
        found[f"after_{name}"] = -1
        found[f"after_{name}"][closed] = its_end[f"good_{name}"]
    return found


def _sorted(parts: Sequence[Array]) -> Array:
    whole = np.concatenate([np.zeros(0, _EDGE), *parts])
    return whole[np.lexsort((whole["ordinal"], whole["row"]))]
