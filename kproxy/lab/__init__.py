"""A cluster laid on a lab of network namespaces, and what can be done to it: faults, trials."""
