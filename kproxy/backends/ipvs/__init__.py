"""ClusterIPs as virtual services of the kernel's IPVS. See README.md."""
