"""Talking to any Kubernetes API server: kubeconfig, requests, watches, informers."""
