"""The nftables mode: a constant set of rules, services as elements of maps."""
