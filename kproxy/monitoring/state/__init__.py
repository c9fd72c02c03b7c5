"""Tells Prometheus how objects of the API are, by the names of kube-state-metrics."""
