"""The door of a lab: how commands get into it, whatever kernel it lives on.

::

    kproxy lab exec node1 -- ip route
        │  unix socket in the lab's directory, one connection per command
    owner (kproxy lab up): keeps the lab alive, passes frames on        (:mod:`owner`)
        │  standard input and output of its child, which runs on the lab's kernel
    door: owns the lab, starts commands in its hosts                    (:mod:`server`)

On this machine's own kernel the child runs here; otherwise it is the command of an embedded
kernel. Frames are those of :mod:`netns.kernels.frames`, with a number of a session in front of
every payload between owner and door (:mod:`messages`).
"""
