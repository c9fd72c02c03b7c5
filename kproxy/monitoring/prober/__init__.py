"""Asks Services how they fare, as a pod on a node sees them; the answers are metrics."""
