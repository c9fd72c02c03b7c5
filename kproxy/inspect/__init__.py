"""What an operator asks of a node: what should be, what is, and what becomes of a packet.

Reads and computes; never writes to the kernel or to the API server.
"""
