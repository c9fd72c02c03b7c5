"""Answers on a terminal: lines are broken between words, and rules are left as they are."""

from kproxy.inspect import text

LINES = [
    "10.96.0.10:80/TCP is the ClusterIP of demo/web:http (mode ipvs, node node1)",
    "",
    "  10.128.0.5:8080  this node  used",
    "  from a pod of this node, outside: refused (ICMP port unreachable)",
    "      the service has no usable endpoints",
    "        missing     rule nat KUBE-SERVICES -d 10.96.0.10/32 -j KUBE-SVC-X",
]


def test_lines_are_broken_between_words() -> None:
    found = list(text.fitted(LINES, 40))
    assert found == [
        "10.96.0.10:80/TCP is the ClusterIP of",
        "demo/web:http (mode ipvs, node node1)",
        "",
        "  10.128.0.5:8080  this node  used",
        "  from a pod of this node, outside:",
        "      refused (ICMP port unreachable)",
        "      the service has no usable",
        "      endpoints",
        LINES[-1],
    ]


def test_lines_that_fit_are_left() -> None:
    assert list(text.fitted(LINES, 80)) == LINES
