"""The prepared actions, and the ways to reach a node."""
