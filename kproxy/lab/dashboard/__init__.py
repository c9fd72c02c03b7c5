"""A small live page of a lab: who is where, what flows and what is lost, and buttons for faults.

::

    browser ── HTTP on loopback, a token in the URL ── kproxy lab dashboard     (:mod:`server`)
        │  one command that is kept, through the lab's door: a line in, a line out
    beside the lab's hosts, on the lab's kernel                                  (:mod:`inside`)
        │  looks (:mod:`looking`) and does what was ordered (:mod:`faults`)
    the cluster's API, processes and counters of the hosts, Prometheus' API

Nothing is looked at while nobody looks on. Everything that is shown is put together by
:mod:`view`, which is pure.
"""
