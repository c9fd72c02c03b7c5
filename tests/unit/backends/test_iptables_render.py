from kproxy.backends.iptables import names, render
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    Prefix,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)


def service(
    namespace: str,
    name: str,
    port_name: str,
    *endpoints: Endpoint,
    protocol: Protocol = Protocol.TCP,
    cluster_ip: str = "10.96.0.10",
) -> ServiceState:
    port = ServicePort(
        name=ServicePortName(namespace, name, port_name, protocol),
        cluster_ip=Address(cluster_ip),
        port=80,
    )
    return ServiceState(service=port, cluster=endpoints, known=endpoints, anywhere=bool(endpoints))


def state(
    *services: ServiceState, family: Family = Family.IPV4, cidr: str = "10.128.0.0/9"
) -> State:
    return State(
        family=family,
        services={one.service.name: one for one in services},
        cluster_cidrs=(Prefix(cidr),),
    )


def at(address: str, port: int = 8080) -> Endpoint:
    return Endpoint(address=Address(address), port=port)


def test_chain_names_are_those_of_every_kube_proxy() -> None:
    """Names seen in the rules of countless clusters."""
    api = service("default", "kubernetes", "https")
    dns = service("kube-system", "kube-dns", "dns", protocol=Protocol.UDP)
    dns_tcp = service("kube-system", "kube-dns", "dns-tcp")
    found = [names.service_chain(one.service) for one in (api, dns, dns_tcp)]
    expected = [
        "KUBE-SVC-NPX46M4PTMTKRN6Y",
        "KUBE-SVC-TCOU7JCQXEZGVUNU",
        "KUBE-SVC-ERIFXISQEP7F7OF4",
    ]
    assert expected == found


def test_a_service_as_text() -> None:
    web = service("demo", "web", "http", at("10.128.1.6"), at("10.128.0.5"))
    wanted = render.render(state(web))
    chain = names.service_chain(web.service)
    first, second = (
        names.endpoint_chain(web.service, at(address)) for address in ("10.128.0.5", "10.128.1.6")
    )
    nat = wanted["nat"].chains
    assert nat["KUBE-SERVICES"][:-1] == (
        '-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "demo/web:http cluster IP"'
        f" -m tcp --dport 80 -j {chain}",
    )
    assert nat[chain] == (
        f"-A {chain} ! -s 10.128.0.0/9 -d 10.96.0.10/32 -p tcp -m comment --comment"
        ' "demo/web:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ',
        f'-A {chain} -m comment --comment "demo/web:http -> 10.128.0.5:8080"'
        f" -m statistic --mode random --probability 0.50000000000 -j {first}",
        f'-A {chain} -m comment --comment "demo/web:http -> 10.128.1.6:8080" -j {second}',
    )
    assert nat[first] == (
        f'-A {first} -s 10.128.0.5/32 -m comment --comment "demo/web:http" -j KUBE-MARK-MASQ',
        f'-A {first} -p tcp -m comment --comment "demo/web:http" -m tcp'
        " -j DNAT --to-destination 10.128.0.5:8080",
    )
    assert wanted["filter"].chains["KUBE-SERVICES"] == ()


def test_the_order_in_which_endpoints_are_given_does_not_matter() -> None:
    one, other = at("10.128.1.6"), at("10.128.0.5")
    assert render.render(state(service("demo", "web", "", one, other))) == render.render(
        state(service("demo", "web", "", other, one))
    )


def test_ipv6() -> None:
    web = service("demo", "web", "", at("fd00::5"), cluster_ip="fd00:10:96::a")
    none = service("demo", "none", "", cluster_ip="fd00:10:96::b")
    wanted = render.render(state(web, none, family=Family.IPV6, cidr="fd00:10:128::/48"))
    chain = names.endpoint_chain(web.service, at("fd00::5"))
    assert wanted["nat"].chains[chain][1].endswith("--to-destination [fd00::5]:8080")
    assert (
        wanted["nat"]
        .chains["KUBE-SERVICES"][0]
        .startswith("-A KUBE-SERVICES -d fd00:10:96::a/128 ")
    )
    assert (
        wanted["filter"]
        .chains["KUBE-SERVICES"][0]
        .endswith("REJECT --reject-with icmp6-port-unreachable")
    )


def test_two_services_with_one_address_the_first_by_name_has_it() -> None:
    first, second = (
        service("demo", "a", "", at("10.0.0.1")),
        service("demo", "b", "", at("10.0.0.2")),
    )
    assert render.render(state(first)) == render.render(state(second, first))


def test_probabilities_are_as_the_kernel_keeps_them() -> None:
    """A third is no multiple of 2^-31; the tool prints what the kernel has made of it."""
    web = service("demo", "web", "", at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.3"))
    rules = render.render(state(web))["nat"].chains[names.service_chain(web.service)]
    assert "--probability 0.33333333349 " in rules[1]
    assert "--probability 0.50000000000 " in rules[2]


def test_a_name_that_no_api_server_would_give_out_becomes_no_rule() -> None:
    evil = service("demo", 'x"\n-A INPUT -j ACCEPT\n' + "y" * 300, "", at("10.0.0.1"))
    for table in render.render(state(evil)).values():
        for rules in table.chains.values():
            for rule in rules:
                assert "\n" not in rule
                assert rule.count('"') in (0, 2)
                assert len(rule.partition('"')[2].partition('"')[0]) <= 255
