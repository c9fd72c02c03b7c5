"""The server of health checks and metrics: how it ends."""

import http.client

from kproxy.healthhttp import HealthServer


def test_a_client_that_comes_at_the_very_end_disturbs_nobody() -> None:
    with HealthServer("127.0.0.1:0", {"/healthz": lambda: (200, "ok")}) as served:
        assert served._server is not None
        served._server._ending = True  # The end has begun, and nobody has been woken yet.
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30.0)
        client.request("GET", "/healthz")
        assert client.getresponse().status == 200
        client.close()
        served._thread.join(30.0)
        assert not served._thread.is_alive()
