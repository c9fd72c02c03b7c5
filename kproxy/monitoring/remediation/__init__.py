"""An alert comes in, a prepared action repairs what it tells of, or a human is asked.

    webhook (server, webhook) → journal → book (which alert is news?) → guards (is it allowed?)
        → engine: check → run → verify → done, or escalated

Everything that happens is a record in the journal, written before it happens.
"""
