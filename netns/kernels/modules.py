"""The kernel modules that a node and the lab around it need, to be loaded at boot.

Loading them all at once costs one process and 10 ms for each, loading one when it is first needed
50 ms, maybe in the middle of a measurement. What is rarely needed is left to that: the kernel and
iptables load it by themselves. A name that a kernel does not have is left out there.
"""

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "mh")
SETS = ("ip", "ipport", "ipportip", "ipportnet", "net")
# Matches and targets of the rules of kube-proxy and of this project.
XTABLES = (
    *("addrtype", "comment", "conntrack", "ipvs", "mark", "multiport", "physdev", "recent"),
    *("set", "statistic", "tcpudp", "MASQUERADE", "nat", "nfacct", "CT"),
)

ALL = (
    *("veth", "bridge", "dummy", "sch_netem", "tun"),
    "ip_vs",
    *(f"ip_vs_{scheduler}" for scheduler in SCHEDULERS),
    *("nf_conntrack", "nf_conntrack_netlink", "nf_nat", "nfnetlink_acct", "sctp"),
    *("ip_set", "ip_set_bitmap_port", *(f"ip_set_hash_{kind}" for kind in SETS)),
    *(f"ip{six}table_{table}" for six in ("", "6") for table in ("filter", "nat", "mangle")),
    *("ipt_REJECT", "ip6t_REJECT"),
    *(f"xt_{name}" for name in XTABLES),
)
