"""The parts of the load balancer before a cluster: whom to balance, who is well, who gets what."""
