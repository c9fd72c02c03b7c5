"""Requests to the API server, as the metrics of Kubernetes' own clients have them."""

import math

from exposition_parser import Parsed, parse

from kproxy.client.http1 import Exchange, Exchanges
from kproxy.client.requestmetrics import RequestMetrics
from kproxy.exposition import Registry

HOST = ("host", "10.0.0.1:6443")


def told(*exchanges: Exchange) -> dict[str, Parsed]:
    registry = Registry()
    counted = RequestMetrics(registry, HOST[1])
    for one in exchanges:
        counted.observe(one)
    return parse(registry.text())


def test_requests_by_code_and_method() -> None:
    found = told(
        Exchange("GET", "200", 0.003, 0, 5000),
        Exchange("GET", "200"),
        Exchange("POST", "<error>", 1.5, 300, None, 0.02),
    )
    name = "rest_client_requests_total"
    assert found[name].samples == {
        (name, (("code", "200"), HOST, ("method", "GET"))): 2,
        (name, (("code", "<error>"), HOST, ("method", "POST"))): 1,
    }
    get, post = (HOST, ("verb", "GET")), (HOST, ("verb", "POST"))
    for name, labels, count, total in (
        ("request_duration_seconds", get, 1, 0.003),
        ("request_duration_seconds", post, 1, 1.5),
        ("request_size_bytes", post, 1, 300),
        ("response_size_bytes", get, 1, 5000),
        ("dns_resolution_duration_seconds", (HOST,), 1, 0.02),
    ):
        samples = found[f"rest_client_{name}"].samples
        assert samples[f"rest_client_{name}_count", labels] == count
        assert samples[f"rest_client_{name}_sum", labels] == total
    assert ("rest_client_response_size_bytes_count", post) not in found[
        "rest_client_response_size_bytes"
    ].samples


def test_buckets_are_those_of_client_go() -> None:
    found = told(Exchange("GET", "200", 0.003, 0, 5000, 0.001))
    for name, first, last, count in (
        ("request_duration_seconds", "0.005", "60", 12),
        ("dns_resolution_duration_seconds", "0.005", "30", 11),
        ("response_size_bytes", "64", "16777216", 11),
    ):
        samples = found[f"rest_client_{name}"].samples
        bounds = [dict(labels)["le"] for one, labels in samples if one.endswith("_bucket")]
        assert (bounds[0], bounds[-2], len(bounds)) == (first, last, count + 1)


def test_no_certificates_of_plugins_expire() -> None:
    name = "rest_client_exec_plugin_ttl_seconds"
    assert told()[name].samples[name, ()] == math.inf


def test_who_listens_late_hears_of_the_first_ones_too() -> None:
    exchanges = Exchanges()
    for number in range(Exchanges.KEPT + 5):
        exchanges.tell(Exchange("GET", str(number)))
    heard: list[Exchange] = []
    exchanges.listen(heard.append)
    assert [heard[0].code, len(heard)] == ["5", Exchanges.KEPT]
    exchanges.tell(Exchange("GET", "last"))
    assert heard[-1].code == "last"
