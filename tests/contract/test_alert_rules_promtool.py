"""What Prometheus' and Alertmanager's own tools say of the rules and routes, in both profiles."""

import re
import subprocess
from pathlib import Path

import alert_rules
import pytest
import yaml

from kproxy.monitoring import profiles
from kproxy.monitoring.profiles import Profile

TESTS = [pytest.param(path, id=path.stem) for path in sorted(alert_rules.TESTS.glob("*.yaml"))]
FILE_OF_ALERTMANAGER = profiles.DEPLOY / "alertmanager" / "alertmanager.yml"


@pytest.fixture(params=list(Profile))
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rules(tmp_path: Path, profile: str) -> Path:
    """Write the rules of a profile; return their directory."""
    directory = tmp_path / "rules"
    directory.mkdir()
    for name, document in profiles.rules(profile).items():
        (directory / name).write_text(yaml.safe_dump(document))
    return directory


@pytest.fixture
def routes(tmp_path: Path, profile: str) -> Path:
    """Write Alertmanager's configuration of a profile; return its file."""
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(profiles.alertmanager(profile)))
    return file


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs_tool("promtool")
def test_rules_are_valid(rules: Path) -> None:
    assert "SUCCESS" in run("promtool", "check", "rules", *sorted(rules.iterdir()))


@pytest.mark.needs_tool("promtool")
@pytest.mark.parametrize("path", TESTS)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    run("promtool", "test", "rules", path)


@pytest.mark.needs_tool("promtool")
@pytest.mark.parametrize("path", TESTS)
def test_so_do_those_of_a_lab_sixty_times_as_fast(path: Path, tmp_path: Path) -> None:
    for name, document in profiles.rules(Profile.LAB).items():
        (tmp_path / name).write_text(yaml.safe_dump(document))
    tests = tmp_path / "tests.yaml"
    tests.write_text(
        yaml.safe_dump(alert_rules.for_lab(yaml.safe_load(path.read_text()), tmp_path))
    )

    run("promtool", "test", "rules", tests)


@pytest.mark.needs_tool("promtool")
def test_in_a_lab_a_proxy_that_hangs_is_told_within_a_second_of_the_scrape(tmp_path: Path) -> None:
    """Up to a second until the next scrape, half a second until it is given up, one of these."""
    rules = profiles.rules(Profile.LAB)["proxy.yaml"]
    (tmp_path / "proxy.yaml").write_text(yaml.safe_dump(rules))
    series = 'up{job="kube-proxy",instance="10.0.0.1:10249",node="n1"}'
    check = {
        "expr": 'ALERTS{alertname="KproxyProxyUnreachable",alertstate="firing",node="n1"}',
        "eval_time": "11s",
    }
    found = (
        'ALERTS{alertname="KproxyProxyUnreachable",alertstate="firing",node="n1",'
        'remediation="restart-proxy",severity="critical"}'
    )
    tests = {
        "rule_files": ["proxy.yaml"],
        "evaluation_interval": "1s",
        "tests": [
            {
                "interval": "1s",
                "input_series": [{"series": series, "values": "1x9 0x9"}],
                "promql_expr_test": [{**check, "exp_samples": [{"labels": found, "value": 1}]}],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))

    run("promtool", "test", "rules", tmp_path / "tests.yaml")

    every = profiles.intervals(Profile.LAB)
    waits = (every.scrape, every.timeout, every.evaluation, "1s")
    assert sum(map(profiles.milliseconds, waits)) <= 4000


@pytest.mark.needs_tool("amtool")
def test_routes_are_valid(routes: Path) -> None:
    assert "SUCCESS" in run("amtool", "check-config", routes)


@pytest.mark.needs_tool("amtool")
def test_the_file_itself_is_valid() -> None:
    assert "SUCCESS" in run("amtool", "check-config", FILE_OF_ALERTMANAGER)


@pytest.mark.needs_tool("amtool")
def test_each_alert_goes_to_whom_it_should(routes: Path) -> None:
    for rule in alert_rules.alerts():
        name, given = rule["alert"], rule["labels"]
        labels = {"alertname": name, **alert_rules.fired(name)[0], **given}
        wanted = ["remediation"] if "remediation" in given else []
        wanted = ["dead-man"] if name == "Watchdog" else [*wanted, "humans"]

        run(
            *("amtool", "config", "routes", "test", f"--config.file={routes}"),
            f"--verify.receivers={','.join(wanted)}",
            *(f"{key}={value}" for key, value in labels.items()),
        )


@pytest.mark.needs_tool("amtool")
def test_what_nobody_foresaw_goes_to_humans(routes: Path) -> None:
    route = ("amtool", "config", "routes", "test", f"--config.file={routes}")

    run(*route, "--verify.receivers=humans", "alertname=Other", "severity=warning")
    run(*route, "--verify.receivers=remediation,humans", "alertname=Other", "remediation=mine")


@pytest.mark.needs_tool("promtool")
def test_the_configuration_for_a_real_cluster_is_one(tmp_path: Path) -> None:
    """Debian's promtool knows no ``kubernetes_sd_configs``: for it they are files."""
    text = (profiles.DEPLOY / "prometheus.yml").read_text()
    files = re.sub(r"kubernetes_sd_configs: \[.*\]", "file_sd_configs: [{files: [x.json]}]", text)
    (tmp_path / "prometheus.yml").write_text(files)

    run("promtool", "check", "config", "--syntax-only", tmp_path / "prometheus.yml")

    jobs = {one["job_name"] for one in yaml.safe_load(text)["scrape_configs"]}
    asked = {
        job
        for rule in alert_rules.alerts()
        for named in re.findall(r'job=~?"([^"]+)"', rule["expr"])
        for job in named.split("|")
    }
    assert asked <= jobs


def test_everybody_is_asked_where_a_cluster_by_kubeadm_answers() -> None:
    """States of objects on the real port; kubelets whose certificates nobody else has signed."""
    said = yaml.safe_load((profiles.DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    jobs = {one["job_name"]: one for one in said}

    (states,) = jobs["kube-state-metrics"]["static_configs"]
    assert [target.rpartition(":")[2] for target in states["targets"]] == ["8080"]
    assert jobs["kubelet"]["tls_config"] == {"insecure_skip_verify": True}


def test_prometheus_is_as_fast_as_the_profile_says() -> None:
    said = yaml.safe_load((profiles.DEPLOY / "prometheus.yml").read_text())["global"]
    every = profiles.intervals(Profile.PRODUCTION)

    assert said["scrape_interval"] == every.scrape
    assert said["scrape_timeout"] == every.timeout
    assert said["evaluation_interval"] == every.evaluation
