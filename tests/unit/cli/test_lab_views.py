"""A lab's picture as tables, text, Graphviz and SVG."""

import io
from xml.etree import ElementTree

import pytest
from rich.console import Console

from kproxy.cli import lab_graph, lab_tables
from kproxy.lab.whole.monitors import Alert, Target, Watch
from kproxy.lab.whole.picture import (
    HostPicture,
    NodePicture,
    Picture,
    PodPicture,
    ProcessPicture,
    ServicePicture,
)


def picture(**changes: object) -> Picture:
    made = Picture(
        name="demo",
        mode="ipvs",
        families=["IPv4"],
        store="sqlite",
        security="tls",
        profile="production",
        api_url="https://192.168.49.1:6443",
        hosts=[
            HostPicture(name="edge", kind="edge", addresses=["192.168.50.5"]),
            HostPicture(name="control1", kind="control", addresses=["192.168.50.201"]),
            HostPicture(
                name="node1", kind="node", addresses=["192.168.50.11"], link="delay 1ms"
            ),
            HostPicture(name="outside1", kind="outside", addresses=["198.51.100.11"]),
        ],
        control_plane=[
            ProcessPicture(host="control1", role="apiserver", pid=7, starts=1),
            ProcessPicture(host="control1", role="manager", pid=8, starts=3, leads=True),
            ProcessPicture(host="node1", role="kubelet", pid=9, starts=1),
        ],
        nodes=[NodePicture(name="node1", ready=True, zone="east", pods=1)],
        pods=[
            PodPicture(
                namespace="shop", name="front-1", node="node1", phase="CrashLoopBackOff",
                ready=0, containers=1, restarts=2, addresses=["10.244.1.2"],
            ),
        ],
        services=[
            ServicePicture(
                namespace="shop", name="front", type="NodePort", addresses=["10.96.1.1"],
                ports=["80:30080/TCP"], endpoints=0,
            ),
        ],
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def printed(one: Picture) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=100)
    for part in lab_tables.parts(one, None):
        console.print(part)
    return stream.getvalue()


def test_tables_show_who_leads_who_came_back_and_what_is_not_well() -> None:
    text = printed(picture())
    assert "apiserver, manager* (2 restarts)" in text
    assert "delay 1ms" in text
    (pod,) = [line for line in text.splitlines() if "shop/front-1" in line]
    assert pod.split()[1:4] == ["0/1", "CrashLoopBackOff", "2"]
    (service,) = [line for line in text.splitlines() if "80:30080/TCP" in line]
    assert service.split()[-1] == "0"


def test_without_an_api_the_processes_are_shown_and_why() -> None:
    text = printed(picture(api="connection refused", nodes=[], pods=[], services=[]))
    assert "The API does not answer: connection refused" in text
    assert "manager*" in text


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        ({}, True),
        ({"api": "it is away"}, False),
        ({"nodes": [NodePicture(name="node1", ready=False)]}, False),
        ({"control_plane": [ProcessPicture(host="control1", role="apiserver")]}, False),
    ],
)
def test_a_lab_is_well_if_all_run_and_nodes_are_ready(
    changes: dict[str, object], well: bool
) -> None:
    assert lab_tables.is_well(picture(**changes)) is well


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_text_shows_every_host_within_the_width(width: int) -> None:
    text = lab_graph.text(picture(), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("edge", "control1", "node1", "outside1", "manager*", "shop/front-1"):
        assert word in text


def test_an_unplugged_host_is_told() -> None:
    one = picture()
    one.hosts[2].plugged = False
    assert "node1 (unplugged)" in lab_graph.text(one, 80)
    assert '"lan" -- "node1" [style=dashed]' in lab_graph.dot(one)


def test_dot_has_a_node_for_each_host_and_an_edge_for_each_cable() -> None:
    lines = lab_graph.dot(picture()).splitlines()
    assert sum(" -- " in line for line in lines) == 4
    assert '  "outside" -- "outside1";' in lines
    assert any(line.startswith('  "control1" [label="control1\\n') for line in lines)


def test_svg_is_well_formed_and_its_boxes_do_not_overlap() -> None:
    many = [
        HostPicture(name=f"node{n}", kind="node", addresses=[f"192.168.50.{n}"], link="<&>")
        for n in range(11, 21)
    ]
    root = ElementTree.fromstring(lab_graph.svg(picture(hosts=many)))
    boxes = [
        [int(one.attrib[key]) for key in ("x", "y", "width", "height")]
        for one in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert len(boxes) == 10
    for index, (x, y, width, height) in enumerate(boxes):
        assert x + width <= int(root.attrib["width"])
        assert y + height <= int(root.attrib["height"])
        for x2, y2, _, _ in boxes[:index]:
            assert abs(x - x2) >= width or abs(y - y2) >= height


def watched(**changes: object) -> Watch:
    made = Watch(host="monitor1", targets=3, peers=2)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_what_monitors_see_is_shown_but_not_the_alert_that_always_fires() -> None:
    down = Target(job="kube-proxy", instance="192.168.50.11:10249", health="down")
    labels = {"node": "node1", "severity": "critical"}
    alerts = [
        Alert(name=name, state="firing", labels=given, since="")
        for name, given in (("Watchdog", {}), ("KproxyProxyUnreachable", labels))
    ]
    text = printed(picture(monitors=[watched(down=[down], alerts=alerts)]))
    assert "2/3 up" in text
    assert "kube-proxy 192.168.50.11:10249" in text
    assert "KproxyProxyUnreachable node1" in text
    assert "Watchdog" not in text


def test_a_monitor_that_does_not_answer_is_told() -> None:
    trouble = ["Prometheus on monitor1 does not answer: refused"]
    assert trouble[0] in printed(picture(monitors=[watched(trouble=trouble)]))


def test_a_lab_is_not_well_while_a_target_is_down_or_a_monitor_silent() -> None:
    down = Target(job="kubelet", instance="x:1", health="down")
    assert lab_tables.is_well(picture(monitors=[watched()]))
    assert not lab_tables.is_well(picture(monitors=[watched(down=[down])]))
    assert not lab_tables.is_well(picture(monitors=[watched(trouble=["silent"])]))
