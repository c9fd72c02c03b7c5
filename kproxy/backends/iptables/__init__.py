"""ClusterIPs as chains of iptables rules. See README.md."""
