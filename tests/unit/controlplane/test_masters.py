"""API servers as a Service: who renews is listed, who stops or leaves is not."""

import io
import random

import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors, logs
from kproxy.controlplane import addresses, apiserver, routes
from kproxy.controlplane.allocations import Allocations
from kproxy.controlplane.masters import Masters
from kproxy.controlplane.rest import Api

SLICE = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
SERVICE = "/api/v1/namespaces/default/services/kubernetes"
LOG = logs.Log("apiserver", stream=io.StringIO())


@pytest.fixture
def api():
    return new_api()


def another(api):
    """Return another API server over the same store."""
    cidrs = addresses.parse_cidrs("10.96.0.0/16")
    return Api(api.store, Allocations(api.store, cidrs, draw=random.Random(2)))


def masters(api, address, clock):
    return Masters(api, address, 6443, "10.96.0.1", LOG, now=lambda: clock[0])


def get(api, path):
    return msgspec.json.decode(api.get(routes.target(path)).body)


def listed(api, path=SLICE):
    return [endpoint["addresses"][0] for endpoint in get(api, path)["endpoints"]]


def test_the_service_leads_to_those_who_renew(api):
    clock = [1000.0]
    first, second = masters(api, "192.0.2.10", clock), masters(another(api), "192.0.2.9", clock)
    first.reconcile()
    second.reconcile()
    service = get(api, SERVICE)
    assert service["spec"]["clusterIP"] == "10.96.0.1"
    assert service["spec"]["ports"][0]["targetPort"] == 6443
    assert listed(api) == ["192.0.2.9", "192.0.2.10"]
    assert get(api, SLICE)["ports"] == [{"name": "https", "port": 6443, "protocol": "TCP"}]
    before = get(api, SLICE)
    first.reconcile()
    assert get(api, SLICE) == before
    clock[0] += 10
    first.reconcile()
    assert listed(api) == ["192.0.2.9", "192.0.2.10"]
    clock[0] += 5
    first.reconcile()
    assert listed(api) == ["192.0.2.10"]


def test_who_leaves_is_off_the_list_at_once(api):
    clock = [1000.0]
    first, second = masters(api, "192.0.2.10", clock), masters(another(api), "192.0.2.9", clock)
    first.reconcile()
    second.reconcile()
    second.leave()
    assert listed(api) == ["192.0.2.10"]


def test_what_somebody_else_has_changed_is_repaired(api):
    clock = [1000.0]
    first = masters(api, "192.0.2.10", clock)
    first.reconcile()
    api.merge_patch(routes.target(SLICE), b'{"endpoints": []}')
    api.delete(routes.target(SERVICE), {}, b"")
    first.reconcile()
    assert listed(api) == ["192.0.2.10"]
    assert get(api, SERVICE)["spec"]["clusterIP"] == "10.96.0.1"


def test_the_other_family_has_a_slice_of_its_own(api):
    clock = [1000.0]
    masters(api, "192.0.2.10", clock).reconcile()
    masters(api, "2001:db8::1", clock).reconcile()
    assert listed(api) == ["192.0.2.10"]
    assert listed(api, f"{SLICE}-v6") == ["2001:db8::1"]
    assert get(api, f"{SLICE}-v6")["addressType"] == "IPv6"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "nonsense"])
def test_an_address_that_nobody_reaches_is_refused(api, address):
    with pytest.raises(errors.UsageError):
        masters(api, address, [0.0])


@pytest.mark.parametrize(
    "option",
    [
        "--advertise-address=127.0.0.1",
        "--advertise-address=nonsense",
        "--service-cidr=10.96.0.0/32",
        "--service-cidr=10.96.0.0/16,fd00::/128",
        "--service-cidr=10.96.0.0/16,10.97.0.0/16",
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(option, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(apiserver, "_allow_many_descriptors", lambda: None)  # of this process
    pki = tmp_path / "pki"
    assert apiserver.main(["--bind=127.0.0.1:0", f"--pki={pki}", option]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "cannot start" in line
    assert option.partition("=")[2].rpartition(",")[2] in line
    assert not pki.exists()
