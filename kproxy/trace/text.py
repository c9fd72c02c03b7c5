"""A trace as lines for people, and as plain values for JSON. Pure."""

from typing import Any

from kproxy.trace.facts import Trace
from kproxy.trace.packet import Way

_ARROWS = {Way.THERE: "→", Way.BACK: "←"}


def lines(found: Trace) -> list[str]:
    """Return the trace with aligned columns: direction, milliseconds, place, what, words."""
    rows = [
        (_ARROWS[hop.way], _ms(hop.ns, found.sent_ns), hop.place, str(hop.kind), hop.text)
        for hop in found.hops
    ]
    head = ("", "ms", "where", "what", "")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]

    def line(row: tuple[str, str, str, str, str]) -> str:
        arrow, ms, place, kind, text = row
        return (
            f"{arrow:<{widths[0]}} {ms:>{widths[1]}}  {place:<{widths[2]}}  "
            f"{kind:<{widths[3]}}  {text}"
        ).rstrip()

    answer = [f"answer: {found.answer}"] if found.answer else []
    notes = [f"note: {note}" for note in found.notes]
    return [
        f"{found.protocol} {found.flow}",
        line(head),
        *(line(row) for row in rows),
        found.verdict,
        *answer,
        *notes,
    ]


def jsonable(found: Trace) -> dict[str, Any]:
    """Return the trace as plain values; times in milliseconds after sending."""
    return {
        "protocol": found.protocol,
        "source": str(found.flow.source),
        "source_port": found.flow.source_port,
        "destination": str(found.flow.destination),
        "destination_port": found.flow.destination_port,
        "outcome": found.outcome,
        "took_ms": found.took_ms,
        "answer": found.answer,
        "verdict": found.verdict,
        "hops": [
            {
                "way": str(hop.way),
                "place": hop.place,
                "kind": str(hop.kind),
                "text": hop.text,
                "ms": None if hop.ns is None else round((hop.ns - found.sent_ns) / 1e6, 6),
            }
            for hop in found.hops
        ],
        "notes": list(found.notes),
    }


def _ms(ns: int | None, sent_ns: int) -> str:
    return "" if ns is None else f"{(ns - sent_ns) / 1e6:.3f}"
