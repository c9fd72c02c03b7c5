"""What is done on a node when its proxy or its kernel is not as it should be: ``kproxy node``.

Every care looks first, says what is wrong and how that is known, repairs only that, and looks
again. It runs in the node's network namespace, in the proxy's container for one, where it sees
the proxy's process, its ports and the kernel; what should be there it asks the API server.

    seen       what is found, as values          process    the proxy's process, from /proc
    asking     health and metrics, by HTTP       flows      tracked UDP flows to nowhere
    weights    IPVS weights of 0                 drift      the kernel against the API server
    resync     a full sync, now                  kill       the end of a proxy that hangs
    look       all of it at a glance
"""
