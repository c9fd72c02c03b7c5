"""What people do with kubectl, as a script: each line a command and what must come out of it.

The lines that need nothing but an API server are run by ``contract/test_kubectl.py``; all of them
by ``lab/test_lab_kubectl.py``, on a whole cluster, whose controllers and kubelets are there:

    python tests/kubectl_script.py KUBECONFIG [KUBECTL]

``KPROXY_KUBECTLS`` names more programs than the one on the path, separated by colons.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE_SECONDS = 120
IMAGE = "pause"
"""Known to kubelets; whether its containers are ready depends on nothing but their start."""

APP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {colour: blue}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: dns, port: 53, protocol: UDP}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: scratch, emptyDir: {}}]
      containers:
      - name: web
        image: @IMAGE@:1
        imagePullPolicy: IfNotPresent
        resources: {requests: {cpu: 100m}}
        ports: [{name: http, containerPort: 8080}]
        env:
        - {name: COLOUR, value: blue}
        - {name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        envFrom: [{configMapRef: {name: settings}, prefix: SET_}]
        volumeMounts: [{name: scratch, mountPath: /scratch}]
        COMMAND
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: shop}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers:
      - name: agent
        image: @IMAGE@
        COMMAND
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: db, image: @IMAGE@, COMMAND}]
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {name: alone}
status:
  addresses: [{type: InternalIP, address: 192.0.2.7}]
  conditions: [{type: Ready, status: "True", reason: KubeletReady, message: ok}]
"""
COMMAND = 'command: ["sh", "-c", "echo started; echo settings $SET_colour; exec sleep 100000"]'


@dataclass(frozen=True)
class Step:
    """A command, and what must be found in its output (a regular expression), in this order."""

    command: str
    expect: Sequence[str] = ()
    code: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    whole: bool = False
    """Whether it needs controllers and kubelets."""
    alone: bool = False
    """Whether it is for an API server without them."""
    since: tuple[int, int] = (1, 0)
    """The first version of kubectl that has it."""


STEPS = (
    Step("version", ["Server Version"]),
    Step("api-resources", ["configmaps +cm", "deployments +deploy +apps/v1 +true", "leases"]),
    Step("api-versions", ["apps/v1", "coordination.k8s.io/v1"]),
    Step("cluster-info", ["is running at"]),
    Step("get --raw /readyz", ["ok"]),
    Step("apply -f {dir}/app.yaml", ["namespace/shop created", "statefulset.apps/db created"]),
    Step("apply -f {dir}/app.yaml", ["deployment.apps/web unchanged", "db unchanged"]),
    Step("apply -f {dir}/node.yaml", ["node/alone created"], alone=True),
    Step("get nodes -o wide", ["INTERNAL-IP", r"Ready "]),
    Step("-n shop rollout status deploy/web --timeout=60s", ["successfully"], whole=True),
    Step("-n shop rollout status ds/agent --timeout=60s", ["successfully"], whole=True),
    Step("-n shop rollout status sts/db --timeout=60s", ["complete"], whole=True),
    Step("-n shop wait --for=condition=Available deploy/web --timeout=60s", ["met"], whole=True),
    Step("-n shop logs deploy/web", ["started", "settings blue"], whole=True),
    Step(
        "-n shop exec deploy/web -- sh -c 'echo hello; exit 3'",
        ["hello", "exit code 3"],
        code=3,
        whole=True,
        since=(1, 30),
    ),
    Step(
        "-n shop get all -o wide", ["service/web +NodePort +10", "deployment.apps/web", "IMAGES"]
    ),
    Step("-n shop get deploy,ds,sts -o name", ["deployment.apps/web", "daemonset", "statefulset"]),
    Step("get svc -A", ["shop +web"]),
    Step("-n shop get svc web -o jsonpath={{.spec.ports[*].port}}", ["80 53"]),
    Step("-n shop get svc web -o yaml", ["clusterIP: 10", "targetPort: 8080"]),
    Step("-n shop get svc web -o json", ['"nodePort": 3']),
    Step("-n shop get deploy -l 'app in (web,x),app!=y'", ["web"]),
    Step("-n shop get deploy -l app=nothing", ["No resources found"]),
    Step("-n shop get svc --field-selector metadata.name=web --no-headers", ["web +NodePort"]),
    Step("-n shop get cm --sort-by=.metadata.name", ["settings"]),
    Step("-n shop get deploy --show-labels", ["app=web"]),
    Step("get nonsense", ["doesn't have a resource type"], code=1),
    Step("-n shop get deploy nothing", ['deployments.apps "nothing" not found'], code=1),
    Step(
        "-n shop describe deploy web", ["Selector: +app=web", "Image: +@IMAGE@:1", "COLOUR: +blue"]
    ),
    Step("-n shop describe svc web", ["NodePort: +http", "Session Affinity"]),
    Step("-n shop describe pods -l app=web", ["Status: +Running", "Node: "], whole=True),
    Step("describe nodes", ["Unschedulable: +false", "Ready +True"]),
    Step("explain deployment.spec", ["minReadySeconds", "template"]),
    Step("explain pod.spec.containers.readinessProbe", ["httpGet", "periodSeconds"]),
    Step("explain svc --recursive", ["sessionAffinity"]),
    Step("diff -f {dir}/changed.yaml", [r"-  replicas: 2", r"\+  replicas: 3"], code=1),
    Step("apply --dry-run=server -f {dir}/changed.yaml", ["web configured .server dry run"]),
    Step("-n shop get deploy web -o jsonpath={{.spec.replicas}}", ["^2$"]),
    Step("apply -f {dir}/changed.yaml", ["service/web unchanged", "web configured"]),
    Step("-n shop get deploy web -o jsonpath={{.spec.replicas}}", ["^3$"]),
    Step("-n shop scale deploy/web --replicas=4", ["scaled"]),
    Step("-n shop scale sts/db --replicas=2 --current-replicas=7", ["[Ee]xpected"], code=1),
    Step("-n shop label deploy web tier=front", ["labeled"]),
    Step("-n shop label deploy web tier=back", ["already has a value"], code=1),
    Step("-n shop annotate deploy web note=hello", ["annotated?"]),
    Step(
        "-n shop patch deploy web -p "
        """'{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"web","image":"@IMAGE@:2"}}]}}}}}}}}'""",
        ["patched"],
    ),
    Step(
        "-n shop get deploy web -o jsonpath={{.spec.template.spec.containers[*].env[*].value}}",
        ["^blue$"],
    ),
    Step(
        """-n shop patch deploy web --type merge -p '{{"spec":{{"paused":true}}}}'""", ["patched"]
    ),
    Step(
        """-n shop patch deploy web --type json -p '[{{"op":"remove","path":"/spec/paused"}}]'""",
        ["patched"],
    ),
    Step(
        """-n shop patch deploy web --type json -p '[{{"op":"remove","path":"/spec/x"}}]'""",
        ["rejected our request|request is invalid"],
        code=1,
    ),
    Step(
        """-n shop patch deploy web -p '{{"spec":{{"replicas":-1}}}}'""", ["spec.replicas"], code=1
    ),
    Step("-n shop rollout restart deploy/web", ["restarted"]),
    Step("-n shop set image deploy/web web=@IMAGE@:3", ["image updated"]),
    Step("-n shop rollout pause deploy/web", ["paused"]),
    Step("-n shop rollout resume deploy/web", ["resumed"]),
    Step("-n shop rollout status deploy/web --timeout=60s", ["successfully"], whole=True),
    Step("-n shop rollout history deploy/web", ["REVISION", "2"], whole=True),
    Step("-n shop rollout undo deploy/web", ["rolled back"], whole=True),
    Step("-n shop rollout status deploy/web --timeout=60s", ["successfully"], whole=True),
    Step("-n shop get deploy web -o yaml", ["image: @IMAGE@:[12]"], whole=True),
    Step("-n shop rollout history ds/agent", ["REVISION"], whole=True),
    Step("-n shop edit deploy web", ["edited"], environment={"EDITOR": "sed -i s/hello/changed/"}),
    Step("-n shop get deploy web -o yaml", ["note: changed"]),
    Step("-n shop edit deploy web", ["no changes"], environment={"EDITOR": "true"}),
    Step("cordon @NODE@", ["cordoned"]),
    Step("get node @NODE@", ["SchedulingDisabled"]),
    Step("uncordon @NODE@", ["uncordoned"]),
    Step("taint node @NODE@ a=b:NoSchedule", ["tainted"]),
    Step("taint node @NODE@ a=b:NoSchedule-", ["untainted"]),
    Step(
        "drain @NODE@ --ignore-daemonsets --delete-emptydir-data --force --timeout=60s",
        ["drained"],
        since=(1, 21),
    ),
    Step("uncordon @NODE@", ["uncordoned"], since=(1, 21)),
    Step("create ns two", ["created"]),
    Step("create ns two", ["AlreadyExists"], code=1),
    Step("-n two create configmap c --from-literal=a=b", ["created"]),
    Step("-n two create secret generic s --from-literal=a=b", ["created"]),
    Step("-n two get secret s -o jsonpath={{.data.a}}", ["^Yg==$"]),
    Step("-n two create service clusterip s --tcp=80:8080", ["created"]),
    Step("-n two create deployment d --image=@IMAGE@ --replicas=1", ["created"], since=(1, 19)),
    Step("-n two create serviceaccount a", ["created"]),
    Step("-n two run lone --image=@IMAGE@", ["pod/lone created"]),
    Step("-n two expose pod lone --port=80", ["exposed"]),
    Step("-n two get cm,secret,svc,deploy,sa,po", ["configmap/c", "secret/s", "deployment.*/d"]),
    Step("-n two get po lone -o jsonpath={{.status.phase}}", ["Pending"], alone=True),
    Step("-n two wait --for=condition=Ready po/lone --timeout=1s", ["timed out"], 1, alone=True),
    Step("-n two create token a", ["[.].*[.]"], since=(1, 24)),
    Step("auth can-i create pods", ["yes"]),
    Step("auth whoami", ["kubernetes-admin"], since=(1, 28)),
    Step("-n shop replace -f {dir}/settings.yaml", ["replaced"]),
    Step("-n shop get cm settings -o jsonpath={{.data.colour}}", ["^red$"]),
    Step("apply --server-side -f {dir}/changed.yaml", ["conflict with .kubectl-replace"], code=1),
    Step(
        "apply --server-side --force-conflicts -f {dir}/changed.yaml",
        ["configmap/settings serverside-applied"],
    ),
    Step("-n shop get cm settings -o jsonpath={{.data.colour}}", ["^blue$"]),
    Step("apply -f {dir}/typo.yaml", ["unknown field .*replica"], code=1),
    Step("apply --validate=false -f {dir}/typo.yaml", ["created"]),
    Step("create -f {dir}/bad.yaml", ["is invalid", r"spec.ports\[0\].port"], code=1),
    Step("get events -A", []),
    Step("get leases -A", []),
    Step("top nodes", ["Metrics API not available"], code=1),
    Step("-n shop delete deploy/web --cascade=orphan --wait=false", ["deleted"], since=(1, 20)),
    Step("-n two delete cm,svc --all", ["deleted"]),
    Step("-n two delete po lone --grace-period=0 --force", ["deleted"]),
    Step("-n two wait --for=delete po/lone --timeout=60s", [], since=(1, 21)),
    Step("delete ns two --timeout=60s", ["deleted"], whole=True),
    Step("delete ns two --wait=false", ["deleted"], alone=True),
    Step("get ns two", ["Terminating"], alone=True),
    Step("-n two create configmap late", ["because it is being terminated"], code=1, alone=True),
    Step("delete -f {dir}/app.yaml --ignore-not-found --timeout=60s", ["deleted"], whole=True),
    Step("delete node alone", ["deleted"], alone=True),
)


class Kubectl:
    """A kubectl with a directory for its files, its cache and its home."""

    def __init__(
        self, program: str, kubeconfig: Path, directory: Path, *, image: str, node: str
    ) -> None:
        self._program = program
        self._directory = directory
        self._names = {"@IMAGE@": image, "@NODE@": node}
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "KUBECONFIG": str(kubeconfig),
        }
        app = self._named(APP.replace("COMMAND", COMMAND))
        changed = app.replace("replicas: 2", "replicas: 3").replace(f"{image}:1", f"{image}:9")
        config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: shop}\n"
        files = {
            "app": app,
            "changed": changed,
            "node": NODE,
            "settings": f"{config}data: {{colour: red}}\n",
            "typo": TYPO,
            "bad": BAD,
        }
        for name, text in files.items():
            (directory / f"{name}.yaml").write_text(text)

    def version(self) -> tuple[int, int]:
        """Return the version of the program."""
        output = self._call(["version", "--client", "-o", "json"], {}).stdout
        major, minor = re.findall(r'"(?:major|minor)": "(\d+)', output)[:2]
        return int(major), int(minor)

    def problems(self, step: Step) -> Iterator[str]:
        """Run a step; yield what is wrong with what came out."""
        command = self._named(step.command.format(dir=self._directory))
        done = self._call(shlex.split(command), step.environment)
        output = done.stdout + done.stderr
        if done.returncode != step.code:
            yield f"kubectl {command}: exit code {done.returncode}\n{output}"
        if "error calculating patch" in output:  # our OpenAPI lacks what it has to compare
            yield f"kubectl {command}: a schema that it cannot use\n{output}"
        place = 0
        for pattern in map(self._named, step.expect):
            found = re.compile(pattern, re.MULTILINE).search(output, place)
            if found is None:
                yield f"kubectl {command}: no {pattern!r} in its output\n{output}"
                return
            place = found.end()

    def _named(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(name, value)
        return text

    def _call(
        self, arguments: Sequence[str], more: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *arguments],
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )


TYPO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: typo, namespace: shop}
spec:
  replica: 2
  selector: {matchLabels: {app: typo}}
  template:
    metadata: {labels: {app: typo}}
    spec: {containers: [{name: c, image: x}]}
"""
BAD = """
apiVersion: v1
kind: Service
metadata: {name: bad, namespace: shop}
spec: {ports: [{port: 70000}]}
"""


def programs() -> list[str]:
    """Return the kubectls to be tried; none, if there is none on the path."""
    found = shutil.which("kubectl")
    more = os.environ.get("KPROXY_KUBECTLS", "").split(":")
    return [found, *filter(None, more)] if found else []


def steps(version: tuple[int, int], *, whole: bool) -> list[Step]:
    """Return what a version of kubectl can do. ``whole``: there are controllers and kubelets."""
    wrong = "alone" if whole else "whole"
    return [step for step in STEPS if step.since <= version and not getattr(step, wrong)]


def run(kubectl: Kubectl, *, whole: bool) -> list[str]:
    """Run the steps; return what was wrong."""
    mine = steps(kubectl.version(), whole=whole)
    return [problem for step in mine for problem in kubectl.problems(step)]


def main(arguments: Sequence[str]) -> int:
    """Run all of it against a cluster."""
    kubeconfig, *more = arguments
    with tempfile.TemporaryDirectory() as directory:
        program = more[0] if more else "kubectl"
        node = subprocess.run(
            [program, "--kubeconfig", kubeconfig, "get", "nodes", "-o", "name"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[0]
        kubectl = Kubectl(
            program,
            Path(kubeconfig).resolve(),
            Path(directory),
            image=IMAGE,
            node=node.removeprefix("node/"),
        )
        problems = run(kubectl, whole=True)
        count = len(steps(kubectl.version(), whole=True))
    print("\n".join(problems) or f"{count} commands, all as expected")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
