"""Instruments and the text format, read back by a strict parser."""

import threading

import pytest
from exposition_parser import parse

from kproxy.exposition import Family, Kind, Registry, Sample, number


def test_what_is_counted_is_read_back() -> None:
    registry = Registry()
    plain = registry.counter("plain_total", "Plain.")
    labelled = registry.counter("by_code_total", "By code.", "code", "family")
    gauge = registry.gauge("level", "A level.")
    plain.add()
    plain.add(by=2)
    labelled.add("200", "IPv4")
    labelled.add("503", "IPv6", by=3)
    gauge.set(-0.5)
    found = parse(registry.text())
    assert found["plain_total"].samples == {("plain_total", ()): 3}
    assert found["by_code_total"].samples == {
        ("by_code_total", (("code", "200"), ("family", "IPv4"))): 1,
        ("by_code_total", (("code", "503"), ("family", "IPv6"))): 3,
    }
    assert found["level"].samples == {("level", ()): -0.5}
    assert [family.kind for family in found.values()] == ["counter", "counter", "gauge"]


def test_buckets_include_their_upper_end() -> None:
    registry = Registry()
    histogram = registry.histogram("seconds", "How long.", (0.1, 1.0), "family")
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value, "IPv4")
    samples = parse(registry.text())["seconds"].samples
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in samples.items()
        if name == "seconds_bucket"
    }
    assert buckets == {"0.1": 2, "1": 3, "+Inf": 4}
    assert samples["seconds_sum", (("family", "IPv4"),)] == pytest.approx(7.65)


def test_an_unlabelled_histogram_is_there_before_anything_was_observed() -> None:
    registry = Registry()
    registry.histogram("seconds", "How long.", (1.0,))
    registry.histogram("others", "How long.", (1.0,), "family")
    assert list(parse(registry.text())) == ["seconds"]


def test_any_text_may_be_a_label_or_a_description() -> None:
    registry = Registry()
    words = 'back\\slash, "quotes",\nnew line {x="1"} ü'
    registry.collect_by(lambda: [Family("odd", Kind.GAUGE, words, [Sample({"a": words}, 1)])])
    ((_name, labels),) = parse(registry.text())["odd"].samples
    assert labels[0][1].replace(r"\\", "\\").replace(r"\"", '"').replace(r"\n", "\n") == words


def test_numbers() -> None:
    values = (0, 3.0, 0.001, 1e16, float("inf"), float("-inf"), float("nan"))
    assert [number(value) for value in values] == [
        "0", "3", "0.001", "1e+16", "+Inf", "-Inf", "NaN",
    ]  # fmt: skip


def test_threads_lose_nothing() -> None:
    registry = Registry()
    counter, histogram = registry.counter("c", "C."), registry.histogram("h", "H.", (1.0,))

    def count() -> None:
        for _ in range(2000):
            counter.add()
            histogram.observe(0.5)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = parse(registry.text())
    assert found["c"].samples["c", ()] == found["h"].samples["h_count", ()] == 8000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a 1\n", "of no family"),
        ("# HELP a A.\n# TYPE a gauge\na 1", "not ended"),
        ("# HELP a A.\n# TYPE a gauge\na 1\na 1\n", "twice"),
        ('# HELP a A.\n# TYPE a gauge\na{b="x"y"} 1\n', "wrong labels"),
        ("# HELP a A.\n# TYPE a counter\na -1\n", "is -1"),
        (
            '# HELP a A.\n# TYPE a histogram\na_bucket{le="+Inf"} 1\na_sum 1\na_count 2\n',
            "does not have all",
        ),
        ("# HELP a A.\n# TYPE a gauge\n", "no samples"),
    ],
)
def test_the_parser_is_strict(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(text)


def test_what_is_gone_is_told_no_more() -> None:
    registry = Registry()
    counter = registry.counter("seen_total", "Seen.", "who")
    histogram = registry.histogram("seconds", "How long.", (1.0,), "who")
    for who in ("a", "b"):
        counter.add(who)
        histogram.begin(who)
    histogram.observe(0.5, "a")
    histogram.begin("a")
    samples = parse(registry.text())["seconds"].samples
    assert samples["seconds_count", (("who", "a"),)] == 1, "beginning again forgets nothing"
    assert samples["seconds_count", (("who", "b"),)] == 0
    for one in (counter, histogram):
        one.remove("a")
        one.remove("a")
    assert 'who="a"' not in registry.text()
    assert 'seen_total{who="b"} 1\n' in registry.text()
