"""Measuring between two hosts: one sends, the other receives, a control channel joins them.

``clockoffset``, ``messages`` and ``terms`` are pure; ``channel`` is the TCP connection,
``receiver`` and ``sender`` are its two ends, ``interface`` finds the way of the frames, and
``roundtrip`` measures where nobody receives: against any server that answers.
"""
