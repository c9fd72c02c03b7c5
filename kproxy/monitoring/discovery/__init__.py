"""Targets for a Prometheus that was built without ``kubernetes_sd_configs``, as Debian's is."""
