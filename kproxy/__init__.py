"""kproxy: a Kubernetes node proxy and the laboratory that measures what its restarts cost."""
