"""The flags of ``kproxy proxy``, as a table: kube-proxy's own by their names, and a few of ours.

The parser, the help text and the configuration are all made from it.
"""

from typing import NamedTuple

from .configfile import NO_EFFECT

KLOG = "log lines are always JSON, on standard error, and written at once"
WINDOWS = "it concerns Windows only"
GONE = "kube-proxy itself has dropped it"

IPTABLES_LIKE = ("iptables", "nftables")


class Flag(NamedTuple):
    """One flag."""

    name: str
    kind: str
    """``text``, ``bool``, ``int``, ``float``, ``duration``, ``list`` or ``map``."""
    help: str
    path: str = ""
    """The field of the configuration that it sets, as v1alpha2 calls it."""
    also: str = ""
    """Another field that it sets."""
    modes: tuple[str, ...] = ()
    """The modes in which it sets its field; empty: in all."""
    why: str = ""
    """Why it has no effect; empty: it has."""

    @property
    def idle(self) -> str:
        """Return why it has no effect; empty if it has."""
        return self.why or NO_EFFECT.get(self.path, "")


GROUPS: dict[str, tuple[Flag, ...]] = {
    "What to do": (
        Flag("help", "bool", "show this help, then end"),
        Flag("version", "bool", "show the version, then end"),
        Flag("cleanup", "bool", "remove all rules of every mode, then end"),
        Flag(
            "cleanup-except",
            "text",
            "remove all rules of every mode but this one, in which a proxy works, then end (not "
            "kube-proxy's)",
        ),
        Flag(
            "init-only",
            "bool",
            "do what needs the rights of root (kernel switches), then end; afterwards the proxy "
            "may run with CAP_NET_ADMIN alone",
        ),
        Flag("write-config-to", "text", "write the effective configuration to a file, then end"),
        Flag("write-config-version", "text", "v1alpha1 or v1alpha2: the version of that file"),
    ),
    "Configuration and API server": (
        Flag(
            "config",
            "text",
            "file with a KubeProxyConfiguration, v1alpha1 or v1alpha2; it wins over flags, except "
            "over --hostname-override; the proxy ends when the file changes",
        ),
        Flag("kubeconfig", "text", "kubeconfig file", "clientConnection.kubeconfig"),
        Flag("master", "text", "URL of the API server; overrides the one in the kubeconfig"),
        Flag("hostname-override", "text", "name of this node", "hostnameOverride"),
        Flag("v", "int", "verbosity of the log; 2 and more: debug lines"),
    ),
    "Mode": (
        Flag("proxy-mode", "text", "iptables, ipvs or nftables", "mode"),
        Flag("masquerade-all", "bool", "masquerade all to ClusterIPs", "linux.masqueradeAll"),
        Flag(
            "iptables-masquerade-bit",
            "int",
            "bit of the packet mark that asks for masquerading, modes iptables and ipvs",
            "iptables.masqueradeBit",
            also="ipvs.masqueradeBit",
        ),
        Flag(
            "iptables-localhost-nodeports",
            "bool",
            "serve node ports on 127.0.0.1 too, mode iptables",
            "iptables.localhostNodePorts",
        ),
        Flag(
            "iptables-sync-period",
            "duration",
            "longest time between two full syncs, modes iptables and nftables",
            "syncPeriod",
            modes=IPTABLES_LIKE,
        ),
        Flag(
            "iptables-min-sync-period",
            "duration",
            "shortest time between two syncs, modes iptables and nftables; 0s: none",
            "minSyncPeriod",
            modes=IPTABLES_LIKE,
        ),
        Flag(
            "ipvs-sync-period",
            "duration",
            "longest time between two full syncs, mode ipvs",
            "syncPeriod",
            modes=("ipvs",),
        ),
        Flag(
            "ipvs-min-sync-period",
            "duration",
            "shortest time between two syncs, mode ipvs",
            "minSyncPeriod",
            modes=("ipvs",),
        ),
        Flag("ipvs-scheduler", "text", "IPVS scheduler", "ipvs.scheduler"),
        Flag("ipvs-exclude-cidrs", "list", "IPVS services not to touch", "ipvs.excludeCIDRs"),
        Flag(
            "ipvs-strict-arp",
            "bool",
            "answer ARP only for addresses on the link",
            "ipvs.strictARP",
        ),
        Flag("ipvs-tcp-timeout", "duration", "idle TCP, 0s: as it is", "ipvs.tcpTimeout"),
        Flag(
            "ipvs-tcpfin-timeout", "duration", "TCP after FIN, 0s: as it is", "ipvs.tcpFinTimeout"
        ),
        Flag("ipvs-udp-timeout", "duration", "idle UDP, 0s: as it is", "ipvs.udpTimeout"),
    ),
    "Node and network": (
        Flag(
            "cluster-cidr",
            "list",
            "networks of the pods, one of each IP family",
            "detectLocal.clusterCIDRs",
        ),
        Flag(
            "detect-local-mode",
            "text",
            "how to tell pods of this node: ClusterCIDR, NodeCIDR, BridgeInterface or "
            "InterfaceNamePrefix",
            "detectLocalMode",
        ),
        Flag(
            "pod-bridge-interface",
            "text",
            "the bridge of BridgeInterface",
            "detectLocal.bridgeInterface",
        ),
        Flag(
            "pod-interface-name-prefix",
            "text",
            "the prefix of InterfaceNamePrefix",
            "detectLocal.interfaceNamePrefix",
        ),
        Flag(
            "nodeport-addresses",
            "list",
            "networks whose addresses serve node ports, or 'primary': the node's own "
            "addresses only (in mode nftables the default)",
            "nodePortAddresses",
        ),
        Flag(
            "bind-address",
            "text",
            "the node's address (nothing is bound to it); unset or 0.0.0.0: as the Node says",
            "nodeIPOverride",
        ),
        Flag(
            "bind-address-hard-fail",
            "bool",
            "end if an address of health checks or metrics cannot be bound",
            "bindAddressHardFail",
        ),
        Flag(
            "oom-score-adj",
            "int",
            "how ready the kernel is to kill the proxy for its memory",
            "linux.oomScoreAdj",
        ),
    ),
    "Connection tracking": (
        Flag(
            "conntrack-max-per-core",
            "int",
            "most connections tracked, for each processor; 0: as it is",
            "linux.conntrack.maxPerCore",
        ),
        Flag("conntrack-min", "int", "but at least so many", "linux.conntrack.min"),
        Flag(
            "conntrack-tcp-timeout-established",
            "duration",
            "idle TCP connections, 0s: as it is",
            "linux.conntrack.tcpEstablishedTimeout",
        ),
        Flag(
            "conntrack-tcp-timeout-close-wait",
            "duration",
            "TCP in CLOSE_WAIT, 0s: as it is",
            "linux.conntrack.tcpCloseWaitTimeout",
        ),
        Flag(
            "conntrack-tcp-be-liberal",
            "bool",
            "take packets outside of the TCP window, too",
            "linux.conntrack.tcpBeLiberal",
        ),
        Flag(
            "conntrack-udp-timeout",
            "duration",
            "UDP flows without an answer, 0s: as it is",
            "linux.conntrack.udpTimeout",
        ),
        Flag(
            "conntrack-udp-timeout-stream",
            "duration",
            "UDP flows with answers, 0s: as it is",
            "linux.conntrack.udpStreamTimeout",
        ),
        Flag(
            "conntrack-clean-last",
            "bool",
            "forget flows of a UDP service's last endpoint too when it goes (not kube-proxy's; "
            "mode ipvs always does)",
            "linux.conntrack.cleanLast",
        ),
    ),
    "Health, metrics and replacement": (
        Flag(
            "healthz-bind-address",
            "text",
            "address:port of health checks; port 0: none",
            "healthzBindAddress",
        ),
        Flag(
            "metrics-bind-address",
            "text",
            "address:port of metrics; port 0: none",
            "metricsBindAddress",
        ),
        Flag("healthz-port", "int", "the port of --healthz-bind-address (deprecated)"),
        Flag("metrics-port", "int", "the port of --metrics-bind-address (deprecated)"),
        Flag(
            "make-before-break",
            "bool",
            "get ready beside a proxy that already works on this node, then ask it to hand over "
            "and end; without it, wait until that one ends by itself (not kube-proxy's)",
            "makeBeforeBreak",
        ),
    ),
}

IDLE = (
    Flag("config-sync-period", "duration", "", "configSyncPeriod"),
    Flag("feature-gates", "map", "", "featureGates"),
    Flag("kube-api-content-type", "text", "", "clientConnection.contentType"),
    Flag("kube-api-qps", "float", "", "clientConnection.qps"),
    Flag("kube-api-burst", "int", "", "clientConnection.burst"),
    Flag("profiling", "bool", "", "enableProfiling"),
    Flag("show-hidden-metrics-for-version", "text", "", "showHiddenMetricsForVersion"),
    *(
        Flag(name, kind, "", why=why)
        for why, flags in {
            KLOG: {
                "logging-format": "text",
                "log-flush-frequency": "duration",
                "log-json-info-buffer-size": "text",
                "log-json-split-stream": "bool",
                "log-text-info-buffer-size": "text",
                "log-text-split-stream": "bool",
                "vmodule": "text",
                "logtostderr": "bool",
                "alsologtostderr": "bool",
            },
            WINDOWS: {
                "windows-service": "bool",
                "network-name": "text",
                "source-vip": "text",
                "enable-dsr": "bool",
                "root-hnsendpoint-name": "text",
                "forward-healthcheck-vip": "bool",
            },
            GONE: {"proxy-port-range": "text", "udp-timeout": "duration"},
        }.items()
        for name, kind in flags.items()
    ),
)
"""Flags that are understood and change nothing, each with its reason."""

FLAGS = (*(flag for group in GROUPS.values() for flag in group), *IDLE)
BY_NAME = {flag.name: flag for flag in FLAGS}
SHORT = {"v": "v", "h": "help"}
