"""``kproxy trace``: the way of one packet, from a socket to a pod and back, hop by hop.

Pure are ``packet`` (what a frame says), ``filters`` (which frames are wanted), ``facts`` (what is
known), ``walk`` (in which order it was seen), ``rules`` and ``hops`` (what happened between) and
``text``. ``places``, ``observer``, ``probe``, ``kernel`` and ``run`` do the rest: they enter
network namespaces, listen, send and ask. Everything that is set up goes with the process.
"""
