"""nftables: one table as a value, changed by atomic transactions, without ``nft``."""
