"""What a lab's Prometheus asks, and how it finds it: ``scrape_configs``. Pure.

Nodes, pods and endpoints are found by asking the API server, and are relabelled, as on a real
cluster; there ``kubernetes_sd_configs`` does it, which Debian's Prometheus lacks, so here it is
:mod:`kproxy.monitoring.discovery`. What is no object there is listed by its address: programs of
the control plane, etcd, the monitors.
"""

from enum import StrEnum
from typing import Any

from kproxy.controlplane.access import kubeconfigs
from kproxy.lab.clusterfile import Security
from kproxy.lab.site import API_PORT, EDGE, Site
from kproxy.lab.whole.places import Places
from kproxy.monitoring.discovery.groups import Role

Object = dict[str, Any]

PROMETHEUS_PORT, ALERTMANAGER_PORT, GOSSIP_PORT = 9090, 9093, 9094
REMEDIATION_PORT, PAGER_PORT, STATE_PORT = 9095, 9096, 8081
PROXY_PORT, MANAGER_PORT, BALANCER_PORT, SCHEDULER_PORT = 10249, 10257, 10258, 10259
DNS_PORT, ETCD_PORT, NODE_EXPORTER_PORT, PROBER_PORT, DISCOVERY_PORT = 9153, 2381, 9100, 9815, 9816
METRICS = "metrics"
"""The name of such a port of a pod or a Service."""


class Job(StrEnum):
    """The jobs, by the names of kubernetes-mixin where it has one."""

    PROXY = "kube-proxy"
    KUBELET = "kubelet"
    API_SERVER = "kube-apiserver"
    MANAGER = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"
    ETCD = "etcd"
    DNS = "kube-dns"
    STATE = "kube-state-metrics"
    NODE_EXPORTER = "node-exporter"
    PROMETHEUS = "prometheus"
    ALERTMANAGER = "alertmanager"
    PROBER = "kproxy-prober"
    REMEDIATION = "kproxy-remediation"
    DISCOVERY = "kproxy-discovery"
    BALANCER = "kproxy-balancer"


_SYSTEM, _DEFAULT = "kube-system", "default"


def scrape_configs(places: Places, host: str) -> list[Object]:
    """Return all jobs of the Prometheus on a host."""
    site = places.site
    jobs = [
        _pods(places, host, Job.PROXY),
        _pods(places, host, Job.PROBER, honor_labels=True),
        _kubelets(places, host),
        _node_exporters(places, host),
        _api_servers(places, host),
        _static(Job.MANAGER, site, site.control, MANAGER_PORT),
        _static(Job.SCHEDULER, site, site.control, SCHEDULER_PORT),
        _static(Job.BALANCER, site, (EDGE,), BALANCER_PORT),
        _state(site, host),
        _static(Job.PROMETHEUS, site, site.monitors, PROMETHEUS_PORT),
        _static(Job.ALERTMANAGER, site, site.monitors, ALERTMANAGER_PORT),
        _static(Job.DISCOVERY, site, site.monitors, DISCOVERY_PORT),
    ]
    if site.etcd:
        jobs.append(_static(Job.ETCD, site, site.etcd, ETCD_PORT))
    if site.file.dns:
        jobs.append(_name_servers(places, host))
    watched = site.file.watched_by
    if watched is not None and watched.remediation:
        first = _static(Job.REMEDIATION, site, site.monitors[:1], REMEDIATION_PORT)
        jobs.append({**first, "honor_labels": True})
    return jobs


def _found(places: Places, host: str, role: Role) -> list[Object]:
    """Return where the targets of a role are listed: Debian's Prometheus cannot ask itself."""
    return [{"files": [str(places.monitoring.targets(host) / f"{role}.json")]}]


def _proof(places: Places) -> Object:
    """Return how Prometheus proves itself to API servers and kubelets."""
    if not places.secure:
        return {}
    return {
        "tls_config": {
            "ca_file": str(places.pki / "ca.crt"),
            "cert_file": str(places.pki / f"{kubeconfigs.MONITORING}.crt"),
            "key_file": str(places.pki / f"{kubeconfigs.MONITORING}.key"),
        }
    }


def _static(job: Job, site: Site, hosts: tuple[str, ...], port: int) -> Object:
    targets = [
        {"targets": [f"{site.lan_address(host)}:{port}"], "labels": {"node": host}}
        for host in hosts
    ]
    return {"job_name": str(job), "static_configs": targets}


def _pods(places: Places, host: str, job: Job, *, honor_labels: bool = False) -> Object:
    """Return the job of a DaemonSet of that name: its pods' port for metrics."""
    labels = ("namespace", "pod_label_k8s_app", "pod_container_port_name", "pod_phase")
    return {
        "job_name": str(job),
        "honor_labels": honor_labels,
        "file_sd_configs": _found(places, host, Role.POD),
        "relabel_configs": [
            _keep(labels, f"{_SYSTEM};{job};{METRICS};(Pending|Running|Unknown)"),
            *_of_pod(),
        ],
    }


def _name_servers(places: Places, host: str) -> Object:
    return {
        "job_name": str(Job.DNS),
        "file_sd_configs": _found(places, host, Role.ENDPOINT_SLICE),
        "relabel_configs": [_endpoints(_SYSTEM, Job.DNS, METRICS), *_of_pod()],
    }


def _api_servers(places: Places, host: str) -> Object:
    """Return the job of the endpoints of the Service ``kubernetes``, by the names of hosts."""
    site = places.site
    names = [
        _set("node", "__address__", f"{site.lan_address(one)}:{API_PORT}", one)
        for one in site.control
    ]
    return {
        "job_name": str(Job.API_SERVER),
        **_scheme(places),
        "file_sd_configs": _found(places, host, Role.ENDPOINT_SLICE),
        "relabel_configs": [_endpoints(_DEFAULT, "kubernetes", "https"), *names],
    }


def _kubelets(places: Places, host: str) -> Object:
    return {
        "job_name": str(Job.KUBELET),
        "honor_labels": True,
        **_scheme(places),
        "file_sd_configs": _found(places, host, Role.NODE),
        "relabel_configs": _of_node(),
    }


def _node_exporters(places: Places, host: str) -> Object:
    port = _set("__address__", "__address__", r"(.+):\d+", f"$1:{NODE_EXPORTER_PORT}")
    return {
        "job_name": str(Job.NODE_EXPORTER),
        "file_sd_configs": _found(places, host, Role.NODE),
        "relabel_configs": [port, *_of_node()],
    }


def _state(site: Site, host: str) -> Object:
    """Return the job of the exporter beside a Prometheus.

    What it tells is not its own: so that both Prometheuses say the same of an object, and raise
    one alert, not two, only ``up`` keeps the labels of the target.
    """
    address = f"{site.lan_address(host)}:{STATE_PORT}"
    return {
        **_static(Job.STATE, site, (host,), STATE_PORT),
        "honor_labels": True,
        "metric_relabel_configs": [
            _set("node", "node", host, ""),
            _set("instance", "instance", address, ""),
        ],
    }


def _scheme(places: Places) -> Object:
    secure = places.site.file.control_plane.security is Security.TLS
    return {"scheme": "https" if secure else "http", **_proof(places)}


def _endpoints(namespace: str, service: str, port: str) -> Object:
    labels = ("namespace", "service_name", "endpointslice_port_name", "endpointslice_address_type")
    return _keep(labels, f"{namespace};{service};{port};IPv4")


def _of_pod() -> list[Object]:
    return [
        _copy("node", "pod_node_name"),
        _copy("namespace", "namespace"),
        _copy("pod", "pod_name"),
    ]


def _of_node() -> list[Object]:
    instance = {"source_labels": ["__address__"], "target_label": "instance"}
    return [_copy("node", "node_name"), instance]


def _keep(labels: tuple[str, ...], values: str) -> Object:
    sources = [f"__meta_kubernetes_{label}" for label in labels]
    return {"source_labels": sources, "regex": values, "action": "keep"}


def _copy(label: str, meta: str) -> Object:
    return {"source_labels": [f"__meta_kubernetes_{meta}"], "target_label": label}


def _set(label: str, source: str, value: str, to: str) -> Object:
    return {"source_labels": [source], "regex": value, "target_label": label, "replacement": to}
