"""The names of a cluster: what they stand for, and the answers to questions for them."""
