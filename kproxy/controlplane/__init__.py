"""The small cluster around the proxy: store, API server, controllers, kubelet."""
