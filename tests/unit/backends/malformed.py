"""Services and EndpointSlices as nobody should write them, beside some as they should be."""

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]
LABEL = "kubernetes.io/service-name"

NODE = {"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}}}


def service(name: str, number: int, **spec: Any) -> Object:
    """Return a Service of both families; ``number`` is the last part of its ClusterIPs."""
    both = [f"10.96.0.{number}", f"fd00:10:96::{number}"]
    families = {"ipFamilies": ["IPv4", "IPv6"], "clusterIP": both[0], "clusterIPs": both}
    status = spec.pop("status", {})
    metadata = {"name": name, "namespace": "demo", "resourceVersion": str(number)}
    return {"metadata": metadata, "spec": {**families, **spec}, "status": status}


def pieces(of: str, *numbers: int, port: int = 8080, protocol: str = "TCP") -> list[Object]:
    """Return the EndpointSlices of a Service, one for each family."""
    return [
        {
            "metadata": {
                "name": f"{of}-{kind.lower()}",
                "namespace": "demo",
                "labels": {LABEL: of},
                "resourceVersion": "3",
            },
            "addressType": kind,
            "endpoints": [
                {
                    "addresses": [f"{prefix}{number}"],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": "n1",
                    "zone": "a",
                    "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]},
                }
                for number in numbers
            ],
            "ports": [{"name": "p", "port": port, "protocol": protocol}],
        }
        for kind, prefix in (("IPv4", "10.128.0."), ("IPv6", "fd00:10:128::"))
    ]


def port(number: int, protocol: str = "TCP", **more: Any) -> Object:
    """Return a port of a Service."""
    return {"name": "p", "port": number, "protocol": protocol, **more}


def everything(name: str, number: int, node_port: int) -> Object:
    """Return a Service that uses all that a Service can have."""
    return service(
        name,
        number,
        type="LoadBalancer",
        ports=[port(80, nodePort=node_port)],
        externalIPs=[f"198.51.100.{number}"],
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Cluster",
        healthCheckNodePort=node_port + 1000,
        loadBalancerSourceRanges=["192.0.2.0/24", "2001:db8::/64"],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
        status={"loadBalancer": {"ingress": [{"ip": f"203.0.113.{number}", "ipMode": "VIP"}]}},
    )


GOOD_SERVICES = [
    service("web", 10, type="NodePort", ports=[port(80, nodePort=30080)]),
    service("dns", 53, ports=[port(53, "UDP")]),
    everything("shop", 20, 30020),
    service("empty", 30, ports=[port(80)]),
]
GOOD_SLICES = [
    *pieces("web", 1, 2),
    *pieces("dns", 3, 4, port=5353, protocol="UDP"),
    *pieces("shop", 5),
]

RAW = {
    "@not-a-number@": b"NaN",
    "@too-large@": b"1e999",
    "@half-a-letter@": b'"\\ud800"',
    "@deep@": b"[" * 1500 + b"]" * 1500,
    "@not-utf-8@": b'"\xff"',
    "@no-escape@": b'"\\q"',
}
"""What JSON cannot have, or decoders refuse; written in place of these words."""


def as_text(obj: Any) -> bytes:
    """Return what a server would send."""
    text = json.dumps(obj).encode()
    for word, raw in RAW.items():
        text = text.replace(f'"{word}"'.encode(), raw)
    return text


NUMBERS = (0, -1, 1, 65535, 65536, 2**31, 2**32, 2**63, 2**64, 10**30, 1.5, 1e300)
WORDS = (
    *("", " ", "None", "a" * 300, "A", "-", "x y", "\n", 'a"b', "a\nCOMMIT\n", "\x00", "é", "²"),
    *(
        "TCP",
        "UDP",
        "SCTP",
        "tcp",
        "Local",
        "ClientIP",
        "NodePort",
        "ExternalName",
        "IPv4",
        "IPv6",
    ),
    *("10.97.0.5", "10.97.0.05", "10.97.0", "::ffff:10.97.0.5", "fd00:10:97::5", "FD00:10:97::05"),
    *("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", "169.254.1.1", "0.1.2.3"),
    *("::", "::1", "ff02::1", "fe80::1", "fe80::1%eth0", "10.97.0.5:80", "[fd00:10:97::5]"),
    *(
        "0.0.0.0/0",
        "::/0",
        "10.97.0.0/16",
        "10.97.0.0/33",
        "10.97.0.0/-1",
        "10.97.0.1/24",
        "/",
        "/8",
    ),
)
ordinary = st.sampled_from([None, True, False, *NUMBERS, *WORDS])
plain = st.one_of(ordinary, ordinary, st.sampled_from(list(RAW)))
junk = st.one_of(
    plain,
    st.text(max_size=5),
    st.integers(),
    st.recursive(
        plain,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["a", "name", "ip", "port", "addresses"]), inner),
        ),
        max_leaves=5,
    ),
    ordinary.map(lambda one: [one] * 1500),
)


def places(obj: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in an object."""
    inner: Iterable[tuple[Any, Any]] = obj.items() if isinstance(obj, dict) else ()
    if isinstance(obj, list):
        inner = enumerate(obj)
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


def changed(obj: Any, at: tuple[Any, ...], value: Any) -> Any:
    """Return an object with another value at a place."""
    if not at:
        return value
    copy = obj.copy()
    copy[at[0]] = changed(obj[at[0]], at[1:], value) if at[1:] else value
    return copy


@st.composite
def spoilt(draw: st.DrawFn, obj: Object) -> bytes:
    """Return an object in which some things have been replaced by others, or doubled."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.sampled_from(places(obj)))
        here: Any = obj
        for key in at:
            here = here[key]
        kind = draw(st.sampled_from(["junk", "junk", "twice", "without"]))
        if kind == "twice" and isinstance(here, list):
            obj = changed(obj, at, here + here)
        elif kind == "without" and isinstance(here, dict) and here:
            lost = draw(st.sampled_from(sorted(here)))
            obj = changed(obj, at, {key: one for key, one in here.items() if key != lost})
        else:
            obj = changed(obj, at, draw(junk))
    return as_text(obj)


NAMES = ("a-bad", "bad", "zz-bad")


@st.composite
def bad_services(draw: st.DrawFn) -> list[bytes]:
    """Return malformed Services that claim nothing that the good ones have."""
    made = []
    for number, name in enumerate(draw(st.lists(st.sampled_from(NAMES), max_size=3))):
        text = json.dumps(everything(name, 100 + number, 31000 + number))
        made.append(
            draw(spoilt(json.loads(text.replace("10.96.", "10.97.").replace(":96:", ":97:"))))
        )
    return made


@st.composite
def bad_slices(draw: st.DrawFn) -> list[bytes]:
    """Return malformed EndpointSlices of the malformed Services, or of nobody."""
    made = []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=3)):
        made.append(draw(spoilt(draw(st.sampled_from(pieces(name, 100, 101))))))
    return made
