"""A network laboratory of Linux namespaces. It knows nothing of proxies."""
