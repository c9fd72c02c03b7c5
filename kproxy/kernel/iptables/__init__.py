"""Packet filter rules through the iptables tools. ``types`` and ``text`` are pure."""
