"""What users write: Kubernetes objects as typed, immutable values; decoding; validation."""
