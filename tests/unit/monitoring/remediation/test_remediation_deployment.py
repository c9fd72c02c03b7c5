"""The manifest for a real cluster says the same as the code and the files beside it."""

from pathlib import Path

import yaml

from kproxy.api import manifests
from kproxy.monitoring.remediation import settings

DEPLOY = Path(settings.__file__).parents[1] / "deploy"
MANIFEST = DEPLOY / "remediation-deployment.yaml"


def test_the_manifest_fits_the_configuration_and_alertmanager() -> None:
    good, problems = manifests.read_manifests(MANIFEST)
    # Our own API has no claims; everything else in the file is understood.
    assert [problem.obj.split(" ")[0] for problem in problems] == ["PersistentVolumeClaim"]
    service, deployment = (one.data for one in good)
    port = service["spec"]["ports"][0]["port"]
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert f"http://{name}:{port}/alerts" in (DEPLOY / "alertmanager/alertmanager.yml").read_text()
    spec = deployment["spec"]["template"]["spec"]
    container = spec["containers"][0]
    config = settings.load(DEPLOY / "remediation.yaml")
    assert port == container["ports"][0]["containerPort"] == settings.PORT
    assert config.listen == f":{settings.PORT}"
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert str(Path(config.token_file).parent) == mounted[0]
    assert config.journal.directory.startswith(f"{mounted[1]}/")
    accounts = [
        one["metadata"]["name"]
        for one in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
        if one["kind"] == "ServiceAccount"
    ]
    assert [spec["serviceAccountName"]] == accounts
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]["type"]) == (
        1,
        "Recreate",
    )
