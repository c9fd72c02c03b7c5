"""The daemon of one node: informers → proxier, healthz, signals."""
