"""What is: one library per kernel facility, knowing no Kubernetes.

Every client acts on the network namespace of the calling process, and next to each stands a fake
that refuses what the kernel refuses. Import the modules, not this package: it holds nothing.
"""
