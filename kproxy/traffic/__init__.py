"""Packets and their fate: generators, responders, record files, loss accounting, result files.

The generators and responders are long-lived processes, one per network namespace, started as
``python -m kproxy.traffic.udp_send``, ``….tcp_client`` and ``….responder`` by whoever has entered
the namespace. They import little, because importing is what starting costs, and they keep their
records in mapped files (:mod:`kproxy.traffic.recordfile`) so that a killed process loses none.

``accounting`` and ``tcp_accounting`` turn records into numbers and touch neither clock nor
kernel; ``resultset`` is the file that everything else reads. Definitions: ``docs/measuring.md``.
"""
