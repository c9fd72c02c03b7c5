"""An API server over TLS, and clients of it with credentials of their own."""

import contextlib
import io
import json
import threading

import pytest

from kproxy import errors, logs
from kproxy.client import kubeconfig, rest
from kproxy.controlplane import addresses, apiserver, security
from kproxy.controlplane.access import kubeconfigs


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    made = kubeconfigs.Credentials(directory, ["127.0.0.1"], "https://127.0.0.1:1")
    made.node_server("n1", ["127.0.0.1"])
    return made


@pytest.fixture
def server(secrets):
    log = logs.Log("apiserver", stream=io.StringIO())
    secured = security.Security.from_directory(
        secrets.directory, tuple(secrets.servers), secrets.url
    )
    cidrs = addresses.parse_cidrs("10.96.0.0/16")
    made = apiserver.start(("127.0.0.1", 0), cidrs, log, security=secured)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()


@pytest.fixture
def client_of(server, secrets):
    """Return a client with the credentials of a kubeconfig, or with a token."""
    url = f"https://127.0.0.1:{server.server_address[1]}"
    with contextlib.ExitStack() as clients:

        def make(path=None, **access):
            if path is None:
                made = kubeconfig.Access(server=url, ca_file=secrets.ca_file, **access)
            else:
                made = kubeconfig.load_kubeconfig(path, server=url)
            return clients.enter_context(rest.Rest(made))

        yield make


@pytest.fixture
def admin(client_of, secrets):
    return client_of(secrets.kubeconfig(kubeconfigs.ADMIN))


def post(client, kind, namespace, obj, name="", part=""):
    path = kind.path(namespace, name, part)
    return json.loads(client.request("POST", path, body=json.dumps(obj).encode()))


def refused(client, *request, **options):
    with pytest.raises(errors.ApiError) as caught:
        client.request(*request, **options)
    return caught.value.code, caught.value.message


def pod(name, node=""):
    spec = {"containers": [{"name": "c"}]} | ({"nodeName": node} if node else {})
    return {"metadata": {"name": name}, "spec": spec}
