"""The cluster of the benches: its generated objects."""

from kproxy.lab import benchcluster


def test_the_generated_cluster_has_the_size_asked_for() -> None:
    made = list(benchcluster.objects(benchcluster.Size(3, 2)))
    slices = [obj for kind, obj in made if kind.name == "EndpointSlice"]
    addresses = [e["addresses"][0] for piece in slices for e in piece["endpoints"]]
    assert len(made) == 6
    assert len(set(addresses)) == 6
