"""The API over HTTP: connections, requests, answers, streams, tunnels, metrics."""
